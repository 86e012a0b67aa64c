variable "conductor_name" {
  description = "The name that Conductor gives the resource."
  type        = string
}

variable "applicationInsightsId" {
  description = "The id of the Application Insights component that gets the service's telemetry."
  type        = string

  validation {
    condition     = length(var.applicationInsightsId) >= 1
    error_message = "The id of the Application Insights component must not be empty."
  }
}

variable "tier" {
  description = "The service's tier."
  type        = string
  default     = "Developer"

  validation {
    condition     = contains(["Consumption", "Developer", "Basic", "Standard", "Premium"], var.tier)
    error_message = "The tier is Consumption, Developer, Basic, Standard or Premium."
  }
}

variable "resourceGroupId" {
  description = "The id of the resource group; none stands for the subscription's default group."
  type        = string
  default     = null
}

variable "conductor_tags" {
  description = "The tags that Conductor gives the resource."
  type        = map(string)
  default     = {}
}

locals {
  resource_group = coalesce(var.resourceGroupId, "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/default")
  key            = sha256(terraform_data.seed.output)
}

# The secret of the simulated resource: made once, kept for the resource's life.
resource "terraform_data" "seed" {
  input = uuid()

  lifecycle {
    ignore_changes = [input]
  }
}

resource "terraform_data" "service" {
  input = {
    id                      = "${local.resource_group}/providers/Microsoft.ApiManagement/service/${var.conductor_name}"
    tier                    = var.tier
    application_insights_id = var.applicationInsightsId
    tags                    = var.conductor_tags
  }
}

output "id" {
  description = "The service's id."
  value       = terraform_data.service.output.id
}

output "name" {
  description = "The service's name."
  value       = var.conductor_name
}

output "gatewayUrl" {
  description = "The address of the gateway."
  value       = "https://${var.conductor_name}.azure-api.net"
}

output "subscriptionKey" {
  description = "The key with which the gateway is called."
  value       = local.key
  sensitive   = true
}

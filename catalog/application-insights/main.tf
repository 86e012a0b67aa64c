variable "conductor_name" {
  description = "The name that Conductor gives the resource."
  type        = string
}

variable "resourceGroupId" {
  description = "The id of the resource group."
  type        = string

  validation {
    condition     = length(var.resourceGroupId) >= 1
    error_message = "The id of the resource group must not be empty."
  }
}

variable "retentionDays" {
  description = "How many days the data is kept."
  type        = number
  default     = 90

  validation {
    condition     = var.retentionDays >= 30 && var.retentionDays <= 730
    error_message = "The data is kept between 30 and 730 days."
  }
}

variable "conductor_tags" {
  description = "The tags that Conductor gives the resource."
  type        = map(string)
  default     = {}
}

# The secret of the simulated resource: made once, kept for the resource's life.
resource "terraform_data" "seed" {
  input = uuid()

  lifecycle {
    ignore_changes = [input]
  }
}

resource "terraform_data" "component" {
  input = {
    id             = "${var.resourceGroupId}/providers/Microsoft.Insights/components/${var.conductor_name}"
    retention_days = var.retentionDays
    tags           = var.conductor_tags
  }
}

output "id" {
  description = "The component's id."
  value       = terraform_data.component.output.id
}

output "name" {
  description = "The component's name."
  value       = var.conductor_name
}

output "instrumentationKey" {
  description = "The key with which applications send data."
  value       = terraform_data.seed.output
  sensitive   = true
}

output "connectionString" {
  description = "The connection string with the instrumentation key."
  value       = "InstrumentationKey=${terraform_data.seed.output};IngestionEndpoint=https://${var.conductor_name}.in.applicationinsights.azure.com/"
  sensitive   = true
}

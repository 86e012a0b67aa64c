variable "conductor_name" {
  description = "The name that Conductor gives the resource."
  type        = string
}

variable "tier" {
  description = "The account's offer."
  type        = string
  default     = "Standard"

  validation {
    condition     = contains(["Standard", "Premium", "Serverless"], var.tier)
    error_message = "The tier is Standard, Premium or Serverless."
  }
}

variable "consistency" {
  description = "The default consistency level."
  type        = string
  default     = "Session"

  validation {
    condition     = contains(["Strong", "BoundedStaleness", "Session", "ConsistentPrefix", "Eventual"], var.consistency)
    error_message = "The consistency is Strong, BoundedStaleness, Session, ConsistentPrefix or Eventual."
  }
}

variable "enableMultiRegion" {
  description = "Whether the account is replicated to a second region."
  type        = bool
  default     = false
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
  key            = base64sha512(terraform_data.seed.output)
  endpoint       = "https://${var.conductor_name}.documents.azure.com:443/"
}

# The secret of the simulated resource: made once, kept for the resource's life.
resource "terraform_data" "seed" {
  input = uuid()

  lifecycle {
    ignore_changes = [input]
  }
}

resource "terraform_data" "account" {
  input = {
    id           = "${local.resource_group}/providers/Microsoft.DocumentDB/databaseAccounts/${var.conductor_name}"
    tier         = var.tier
    consistency  = var.consistency
    multi_region = var.enableMultiRegion
    tags         = var.conductor_tags
  }
}

output "id" {
  description = "The account's id."
  value       = terraform_data.account.output.id
}

output "name" {
  description = "The account's name."
  value       = var.conductor_name
}

output "endpoint" {
  description = "The account's address."
  value       = local.endpoint
}

output "primaryKey" {
  description = "The account's key."
  value       = local.key
  sensitive   = true
}

output "connectionString" {
  description = "The connection string with the key."
  value       = "AccountEndpoint=${local.endpoint};AccountKey=${local.key};"
  sensitive   = true
}

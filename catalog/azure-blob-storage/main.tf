variable "conductor_name" {
  description = "The name that Conductor gives the resource."
  type        = string
}

variable "replication" {
  description = "How the data is replicated."
  type        = string
  default     = "LRS"

  validation {
    condition     = contains(["LRS", "ZRS", "GRS", "RAGRS", "GZRS", "RAGZRS"], var.replication)
    error_message = "The replication is LRS, ZRS, GRS, RAGRS, GZRS or RAGZRS."
  }
}

variable "tier" {
  description = "The account's performance tier."
  type        = string
  default     = "Standard"

  validation {
    condition     = contains(["Standard", "Premium"], var.tier)
    error_message = "The tier is Standard or Premium."
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
  # A storage account's name has at most 24 letters and digits; the end of Conductor's is unique.
  letters = replace(var.conductor_name, "/[^a-z0-9]/", "")
  account = length(local.letters) > 24 ? "st${substr(local.letters, length(local.letters) - 22, 22)}" : local.letters
  key     = base64sha512(terraform_data.seed.output)
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
    id          = "${local.resource_group}/providers/Microsoft.Storage/storageAccounts/${local.account}"
    replication = var.replication
    tier        = var.tier
    tags        = var.conductor_tags
  }
}

output "id" {
  description = "The account's id."
  value       = terraform_data.account.output.id
}

output "name" {
  description = "The account's name."
  value       = local.account
}

output "endpoint" {
  description = "The address of the account's blobs."
  value       = "https://${local.account}.blob.core.windows.net/"
}

output "primaryKey" {
  description = "The account's key."
  value       = local.key
  sensitive   = true
}

output "connectionString" {
  description = "The connection string with the key."
  value       = "DefaultEndpointsProtocol=https;AccountName=${local.account};AccountKey=${local.key};EndpointSuffix=core.windows.net"
  sensitive   = true
}

variable "conductor_name" {
  description = "The name that Conductor gives the resource."
  type        = string
}

variable "location" {
  description = "The Azure region."
  type        = string
  default     = "westeurope"

  validation {
    condition     = can(regex("^[a-z][a-z0-9]+$", var.location))
    error_message = "A region is written like westeurope or westus2."
  }
}

variable "conductor_tags" {
  description = "The tags that Conductor gives the resource."
  type        = map(string)
  default     = {}
}

resource "terraform_data" "group" {
  input = {
    id       = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/${var.conductor_name}"
    name     = var.conductor_name
    location = var.location
    tags     = var.conductor_tags
  }
}

output "id" {
  description = "The resource group's id."
  value       = terraform_data.group.output.id
}

output "name" {
  description = "The resource group's name."
  value       = terraform_data.group.output.name
}

output "location" {
  description = "The Azure region."
  value       = terraform_data.group.output.location
}

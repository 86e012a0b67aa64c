"""Resources: found, listed, protected, adopted, forgotten and destroyed at somebody's request."""

"""What people do with the hub, by pages or by the JSON API: each function checks the caller's rights, changes
rows and records the event, in one transaction."""

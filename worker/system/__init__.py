"""What the operating system offers: descriptors, signals, resources, the service manager."""

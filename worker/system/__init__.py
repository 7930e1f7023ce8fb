"""Operating system services: descriptors, signals, resources, the service manager."""

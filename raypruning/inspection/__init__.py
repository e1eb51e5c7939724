"""What trained networks do on images, beyond their answers on a task."""

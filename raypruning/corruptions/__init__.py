"""Common corruptions of images, batched, on any device: 19 kinds x 5 severities."""

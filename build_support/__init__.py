"""What setup.py needs to compile the native part. Not installed."""

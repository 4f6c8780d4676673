"""Self-supervised and semi-supervised sound event detection for SpeechBrain, s3prl and the Hugging Face Hub."""

__version__ = "0.1.0"

"""The towers of AudioCLIP (Guzhov et al., ICASSP 2022) for frames, sounds and captions, read from one checkpoint."""

from .encoders import AudioClipAudioEncoder, AudioClipVisualEncoder

__all__ = ["AudioClipAudioEncoder", "AudioClipVisualEncoder"]

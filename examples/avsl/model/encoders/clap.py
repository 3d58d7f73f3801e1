"""An audio encoder on CLAP's audio tower; the features of CLAP's extractor are computed in torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ClapAudioConfig, ClapAudioModel, ClapAudioModelWithProjection, ClapFeatureExtractor

from ...constants import SAMPLE_RATE
from .resampling import Upsample
from .tower import Tower, json_values, load_pretrained, read_config

CHUNK = 16  # clips whose float64 spectra are in memory at the same time, 16 MB each


class ClapLogMel(nn.Module):
    """Computes log-mel features, (B, T) at the extractor's rate → (B, 1, frames, mels) float32.

    They are those of ``ClapFeatureExtractor``: the waveform is repeated and zero-padded to a fixed length; |STFT|² on a
    mel scale, in dB. The computation is in float64, as in the extractor: rounding to float32 would leave values well
    above the floor of −100 dB in empty bands.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, extractor: ClapFeatureExtractor) -> None:
        super().__init__()
        self.length, self.hop, self.padding = extractor.nb_max_samples, extractor.hop_length, extractor.padding
        filters = extractor.mel_filters if extractor.truncation == "fusion" else extractor.mel_filters_slaney
        window = torch.hann_window(extractor.fft_window_size, dtype=torch.float64)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.as_tensor(filters, dtype=torch.float64), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        return torch.cat([self._chunk(part.double()) for part in waveforms.split(CHUNK)])

    def _chunk(self, waveforms: Tensor) -> Tensor:
        samples = waveforms.shape[-1]
        if not 0 < samples <= self.length:
            raise ValueError(f"Expected `waveforms` of 1 to {self.length} samples, but got {samples}")
        if self.padding == "repeat":
            waveforms = waveforms.repeat(1, -(-self.length // samples))[:, : self.length]
        elif self.padding == "repeatpad":
            waveforms = waveforms.repeat(1, self.length // samples)
        waveforms = F.pad(waveforms, (0, self.length - waveforms.shape[-1]))
        size = len(self.window)
        spectra = torch.stft(waveforms, size, self.hop, window=self.window, pad_mode="reflect", return_complex=True)
        power = spectra.real.square() + spectra.imag.square()
        mel = power.transpose(1, 2) @ self.filters
        return (10 * mel.clamp_min(1e-10).log10()).float().unsqueeze(1)


class ClapAudioEncoder(Tower):
    """Encodes 16 kHz waveforms, (B, T) → (B, C): upsampling, log-mel features, CLAP's pooled output, a linear head.

    Args:
        weights: Hugging Face name or local folder of a CLAP model or its audio tower, with its feature extractor; or
            the ``architecture`` of an encoder, for random weights.
        out: C.
        frozen: whether only the head is trained.
    """

    def __init__(self, weights: str | dict[str, Any], out: int, *, frozen: bool = True) -> None:
        super().__init__(frozen=frozen)
        if isinstance(weights, dict):
            self.tower = ClapAudioModel(ClapAudioConfig(**weights["tower"]))
            extractor = ClapFeatureExtractor(**weights["extractor"])
        else:
            self.tower, extractor = _load_tower(weights), _load_extractor(weights)
        self.architecture = {"tower": json_values(self.tower.config), "extractor": json_values(extractor)}
        factor = extractor.sampling_rate // SAMPLE_RATE
        self.upsample = Upsample(factor) if factor > 1 else nn.Identity()
        self.log_mel = ClapLogMel(extractor)
        self.trunk_channels = self.tower.audio_encoder.num_features
        self.head = nn.Linear(self.trunk_channels, out)
        self.freeze()

    def features(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():  # in float64, which autocast does not change
            log_mel = self.log_mel(self.upsample(inputs))
        is_longer = None
        if self.tower.config.enable_fusion:  # a clip that is short enough serves as all four views
            log_mel = log_mel.expand(-1, 4, -1, -1)
            is_longer = torch.zeros(len(log_mel), 1, dtype=torch.bool, device=log_mel.device)
        return self.tower(input_features=log_mel, is_longer=is_longer).pooler_output

    def trunk(self, features: Tensor) -> Tensor:
        return features[:, :, None, None]

    def output(self, trunk: Tensor) -> Tensor:
        return self.head(trunk[:, :, 0, 0])


def _load_tower(weights: str) -> ClapAudioModel:
    types = ("clap", "clap_audio_model")
    if "ClapAudioModel" in (read_config("audio_weights", weights).get("architectures") or ()):
        return load_pretrained(ClapAudioModel, types, "audio_weights", weights)
    # In a whole CLAP model, as on the hub, the weights of the tower have the names that this class uses.
    return load_pretrained(ClapAudioModelWithProjection, types, "audio_weights", weights).audio_model


def _load_extractor(weights: str) -> ClapFeatureExtractor:
    try:
        extractor = ClapFeatureExtractor.from_pretrained(weights)
    except OSError as error:
        raise OSError(
            f"Expected `audio_weights` to hold CLAP's feature extractor, but {weights!r} has no "
            "preprocessor_config.json. Write it there with ClapFeatureExtractor.save_pretrained."
        ) from error
    if extractor.sampling_rate % SAMPLE_RATE:
        raise ValueError(
            f"Expected `audio_weights` to take sounds at a multiple of {SAMPLE_RATE} Hz, "
            f"but {weights!r} takes {extractor.sampling_rate} Hz"
        )
    return extractor

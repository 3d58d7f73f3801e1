"""A folder of frames, a chat-completions server with faults, and tiny multimodal models with random weights."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

GOOD = {
    1: {"foreground": ["an image of a person playing"], "background": "an image of a chair"},
    2: {"foreground": ["an image of a cello", "an image of a flute"], "background": "an image of a chair"},
}


def write_folder(root: Path, solos: int = 3, duets: int = 1) -> Path:
    """Clips s0, s1, … with one sound and d0, d1, … with two; the frames differ in size."""
    rng = np.random.default_rng(0)
    for folder in ("frames", "metadata"):
        (root / folder).mkdir(parents=True)
    names = [*(f"s{i}" for i in range(solos)), *(f"d{i}" for i in range(duets))]
    for i, name in enumerate(names):
        pixels = rng.integers(0, 256, size=(20 + 8 * (i % 3), 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "frames" / f"{name}.jpg")
    solo, duet = "".join(f"s{i},cello\n" for i in range(solos)), "".join(f"d{i},cello,flute\n" for i in range(duets))
    (root / "metadata" / "music_solo_train.txt").write_text(solo)
    if duets:
        (root / "metadata" / "music_duet_train.txt").write_text(duet)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    return lambda **sizes: write_folder(tmp_path / "data", **sizes)


@dataclass
class Reply:
    """The server's reply: a chat completion with ``text``, the raw ``body``, or a closed connection (``cut``).

    ``choice`` replaces values of the completion's choice. ``endless`` repeats the body until the client has enough.
    """

    text: str = ""
    status: int = 200
    body: str | bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    choice: dict[str, Any] = field(default_factory=dict)
    endless: bool = False
    reason: str | None = None


@dataclass
class Request:
    """A request as the server saw it."""

    number: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"][1]["text"]

    @property
    def labels(self) -> list[str]:
        return json.loads(self.prompt.rsplit("labels ", 1)[1].splitlines()[0])

    @property
    def good(self) -> Reply:
        return Reply(json.dumps(GOOD[len(self.labels)]))


class ChatServer(ThreadingHTTPServer):
    """A server of the chat-completions protocol. ``reply`` decides each answer, in the thread of the request."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[Request], Reply] = lambda request: request.good
        self.requests: list[Request] = []
        self.in_flight = self.most_in_flight = 0
        self.sent = 0  # bytes of endless replies
        self.lock = threading.Lock()
        self.released = threading.Event()  # set at the end, to release waiting requests
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None:
        """Ignores disconnected clients, which are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            request = Request(len(server.requests), body, {k.lower(): v for k, v in self.headers.items()})
            server.requests.append(request)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            reply = server.reply(request)
        finally:
            with server.lock:
                server.in_flight -= 1
        if reply.cut:
            self.close_connection = True
            return
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply.text}}
        completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        completion["choices"] = [choice | reply.choice]
        content = json.dumps(completion) if reply.body is None else reply.body
        content = content.encode() if isinstance(content, str) else content
        self.send_response(reply.status, reply.reason)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(10**12 if reply.endless else len(content)))
        self.end_headers()
        self.wfile.write(content)
        while reply.endless:
            self.wfile.write(content)
            server.sent += len(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def make_server() -> Iterator[Callable[[], ChatServer]]:
    servers: list[ChatServer] = []

    def make() -> ChatServer:
        server = ChatServer()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(make_server: Callable[[], ChatServer]) -> ChatServer:
    return make_server()


@pytest.fixture
def make_folder_of(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """A folder with one clip per label."""

    def make(labels: Iterable[str]) -> Path:
        labels = list(labels)
        root = write_folder(tmp_path / "labels", solos=len(labels), duets=0)
        lines = "".join(f"s{i},{label}\n" for i, label in enumerate(labels))
        (root / "metadata" / "music_solo_train.txt").write_text(lines)
        return root

    return make


@pytest.fixture
def make_reply() -> type[Reply]:
    return Reply


CHAT = (
    "{% for m in messages %}{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}IMAGE\n"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<end>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
MEAN = [0.5, 0.5, 0.5]
VOCABULARY = 600


def _save_tokenizer(path: Path, named: dict[str, str]) -> dict[str, int]:
    """A tokenizer of all bytes and the prompt's words, saved in ``path``; returns the ids of the special tokens."""
    from avsl.captioning.prompt import build_prompt
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    core.train_from_iterator([build_prompt(["cello", "flute"])] * 2, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<pad>", extra_special_tokens=named
    )
    tokenizer.save_pretrained(path)
    return {token: tokenizer.convert_tokens_to_ids(token) for token in ("<end>", "<pad>", *named.values())}


def _small_text(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY + len(ids),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 8192,
        "bos_token_id": None,
        "eos_token_id": ids["<end>"],
        "pad_token_id": ids["<pad>"],
    }


def _internvl(path: Path) -> None:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    named = {"start_image_token": "<img>", "end_image_token": "</img>"}
    ids = _save_tokenizer(path, named | {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"})
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = InternVLConfig(
        vision_config=vision | {"image_size": 8, "patch_size": 2, "layer_scale_init_value": 1.0},
        text_config=_small_text(ids) | {"model_type": "qwen2"},
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    InternVLForConditionalGeneration(config).save_pretrained(path)
    size = {"height": 8, "width": 8}
    images = {"image_processor_type": "GotOcr2ImageProcessor", "size": size, "min_patches": 1, "max_patches": 4}
    _save(path, images | {"processor_class": "InternVLProcessor"}, CHAT.replace("IMAGE", "<IMG_CONTEXT>"))
    _write(path / "processor_config.json", {"image_seq_length": 4, "processor_class": "InternVLProcessor"})
    _write(path / "video_preprocessor_config.json", {"video_processor_type": "InternVLVideoProcessor", "size": size})


def _qwen2_vl(path: Path) -> None:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    named = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>", "image_token": "<|image_pad|>"}
    ids = _save_tokenizer(path, named | {"video_token": "<|video_pad|>"})
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = Qwen2VLConfig(
        vision_config=vision,
        text_config=_small_text(ids) | {"rope_parameters": rope},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    model = Qwen2VLForConditionalGeneration(config)
    # The published checkpoints sample from a single token, which makes every answer greedy.
    model.generation_config.do_sample = True
    model.generation_config.temperature, model.generation_config.top_k = 0.01, 1
    model.save_pretrained(path)
    images = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2}
    images |= {"min_pixels": 64, "max_pixels": 1024, "processor_class": "Qwen2VLProcessor"}
    _save(path, images, CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"))


def _llava_next(path: Path) -> None:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    ids = _save_tokenizer(path, {"image_token": "<image>"})
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    pinpoints = [[8, 16], [16, 8], [16, 16]]
    config = LlavaNextConfig(
        vision_config=vision | {"intermediate_size": 16, "image_size": 8, "patch_size": 4, "projection_dim": 8},
        text_config=_small_text(ids) | {"model_type": "mistral"},
        image_token_index=ids["<image>"],
        image_grid_pinpoints=pinpoints,
        image_seq_length=4,
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(path)
    images = {"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 8}}
    images |= {"crop_size": {"height": 8, "width": 8}, "image_grid_pinpoints": pinpoints}
    _save(path, images | {"processor_class": "LlavaNextProcessor"}, CHAT.replace("IMAGE", "<image>"))
    processor = {"processor_class": "LlavaNextProcessor", "patch_size": 4, "num_additional_image_tokens": 1}
    _write(path / "processor_config.json", processor | {"vision_feature_select_strategy": "default"})


def _save(path: Path, images: dict[str, Any], chat: str) -> None:
    _write(path / "preprocessor_config.json", images | {"image_mean": MEAN, "image_std": MEAN})
    _write(path / "chat_template.json", {"chat_template": chat})


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Kind → path of a model with random weights, laid out as the published ones are; made once."""
    import torch

    @functools.cache
    def made(kind: str) -> str:
        path = tmp_path_factory.mktemp(kind)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            {"internvl": _internvl, "qwen2_vl": _qwen2_vl, "llava_next": _llava_next}[kind](path)
        return str(path)

    return made


@pytest.fixture(scope="session", params=["internvl", "qwen2_vl", "llava_next"])
def tiny_model(request: pytest.FixtureRequest, tiny_models: Callable[[str], str]) -> str:
    return tiny_models(request.param)

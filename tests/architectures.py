"""Tiny random models of the architectures that people use, over the 256 bytes."""

from __future__ import annotations

import copy
import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BambaConfig,
    BertConfig,
    BloomConfig,
    CLIPVisionConfig,
    CodeGenConfig,
    Cohere2Config,
    CohereConfig,
    DeepseekV3Config,
    Ernie4_5Config,
    Exaone4Config,
    FalconConfig,
    FalconH1Config,
    FalconMambaConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    Glm4vConfig,
    GlmConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    GraniteMoeConfig,
    GraniteMoeHybridConfig,
    InternVLConfig,
    JambaConfig,
    Lfm2Config,
    Lfm2VlConfig,
    Llama4TextConfig,
    LlamaConfig,
    LlavaConfig,
    Mamba2Config,
    MambaConfig,
    MiniMaxConfig,
    Ministral3Config,
    Mistral3Config,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    NemotronConfig,
    Olmo2Config,
    Olmo3Config,
    OlmoConfig,
    OlmoeConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PaliGemmaConfig,
    Phi3Config,
    PhiConfig,
    PixtralVisionConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
    Qwen3VLConfig,
    RecurrentGemmaConfig,
    RobertaConfig,
    RwkvConfig,
    SeedOssConfig,
    SiglipVisionConfig,
    SmolLM3Config,
    SmolVLMConfig,
    StableLmConfig,
    Starcoder2Config,
    T5Config,
    T5ForConditionalGeneration,
    VoxtralConfig,
    XGLMConfig,
    XLMConfig,
)

from hsd_cli.runtime.loading import model_class
from hsd_cli.vocab.vocabulary import Vocabulary

BYTES = 256
SIZES = {
    "vocab_size": BYTES,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    # Tied random embeddings would repeat the last token for ever.
    "tie_word_embeddings": False,
}
WINDOW = 24
SPECIAL = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
GPT_SIZES = {"vocab_size": BYTES, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512} | SPECIAL
FALCON_SIZES = {"vocab_size": BYTES, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4} | SPECIAL
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
ALTERNATING = ["sliding_attention", "full_attention"]
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(**GPT_SIZES),
    "gpt-neox": GPTNeoXConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, sliding_window=WINDOW),
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING),
    "mistral": MistralConfig(**SIZES, sliding_window=WINDOW),
    "phi3": Phi3Config(**SIZES),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "bloom": BloomConfig(vocab_size=BYTES, hidden_size=32, n_layer=2, n_head=4, **SPECIAL),
    "codegen": CodeGenConfig(**GPT_SIZES, rotary_dim=4),
    "cohere": CohereConfig(**SIZES),
    "cohere2": Cohere2Config(**SIZES, sliding_window=WINDOW, layer_types=ALTERNATING),
    "deepseek v3": DeepseekV3Config(
        **SIZES | {"num_key_value_heads": 4},
        **EXPERTS,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=16,
        q_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=6,
    ),
    "ernie 4.5": Ernie4_5Config(**SIZES, head_dim=8),
    "exaone 4": Exaone4Config(**SIZES, sliding_window=WINDOW, layer_types=ALTERNATING),
    "falcon": FalconConfig(**FALCON_SIZES),
    "falcon with alibi": FalconConfig(**FALCON_SIZES, alibi=True),
    "falcon 2": FalconConfig(**FALCON_SIZES, new_decoder_architecture=True, num_kv_heads=2),
    "gemma": GemmaConfig(**SIZES, head_dim=8),
    "gemma 3n": Gemma3nTextConfig(
        **SIZES | {"num_hidden_layers": 4},
        head_dim=8,
        sliding_window=WINDOW,
        num_kv_shared_layers=2,
        layer_types=2 * ALTERNATING,
        vocab_size_per_layer_input=BYTES,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 4,
    ),
    "glm": GlmConfig(**SIZES, head_dim=8),
    "glm 4": Glm4Config(**SIZES, head_dim=8),
    "gpt-bigcode": GPTBigCodeConfig(**GPT_SIZES),
    "gpt-neo": GPTNeoConfig(
        vocab_size=BYTES,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=512,
        attention_types=[[["global", "local"], 1]],
        window_size=WINDOW,
        **SPECIAL,
    ),
    "gpt-oss": GptOssConfig(
        **SIZES,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=WINDOW,
        layer_types=ALTERNATING,
        rope_parameters=ROPE,
    ),
    "granite": GraniteConfig(**SIZES),
    "granite with experts": GraniteMoeConfig(**SIZES, num_local_experts=4),
    "llama 4": Llama4TextConfig(
        **SIZES,
        head_dim=8,
        intermediate_size_mlp=48,
        num_local_experts=4,
        num_experts_per_tok=1,
        attention_chunk_size=WINDOW,
        no_rope_layers=[1, 0],
    ),
    "ministral 3": Ministral3Config(**SIZES, head_dim=8),
    "mpt": MptConfig(vocab_size=BYTES, d_model=32, n_layers=2, n_heads=4, max_seq_len=512, **SPECIAL),
    "nemotron": NemotronConfig(**SIZES),
    "olmo": OlmoConfig(**SIZES),
    "olmo 2": Olmo2Config(**SIZES),
    "olmo 3": Olmo3Config(**SIZES, sliding_window=WINDOW, layer_types=ALTERNATING),
    "olmoe": OlmoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2),
    "opt": OPTConfig(
        vocab_size=BYTES,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        **SPECIAL,
    ),
    "phi": PhiConfig(**SIZES),
    "qwen3 with experts": Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8, num_experts=4),
    "seed-oss": SeedOssConfig(**SIZES, head_dim=8),
    "smollm3": SmolLM3Config(**SIZES, no_rope_layers=[1, 0]),
    "stablelm": StableLmConfig(**SIZES),
    "starcoder2": Starcoder2Config(**SIZES, sliding_window=WINDOW),
    "xglm": XGLMConfig(
        vocab_size=BYTES,
        d_model=32,
        ffn_dim=48,
        num_layers=2,
        attention_heads=4,
        max_position_embeddings=512,
        **SPECIAL,
    ),
}
MAMBA_SIZES = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 4, "mamba_chunk_size": 8}
DELTA_SIZES = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
PURE_SIZES = {"vocab_size": BYTES, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2} | SPECIAL
RECURRENT: dict[str, PreTrainedConfig] = {
    "bamba": BambaConfig(**SIZES, **MAMBA_SIZES, attn_layer_indices=[1]),
    "falcon-h1": FalconH1Config(**SIZES, **MAMBA_SIZES, mamba_d_ssm=64),
    "falcon-mamba": FalconMambaConfig(**PURE_SIZES),
    "granite 4": GraniteMoeHybridConfig(
        **SIZES, **MAMBA_SIZES, layer_types=["mamba", "attention"], num_local_experts=4, shared_intermediate_size=16
    ),
    "jamba": JambaConfig(
        **SIZES,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        num_experts_per_tok=1,
        mamba_d_state=4,
        use_mamba_kernels=False,
    ),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
    "mamba": MambaConfig(**PURE_SIZES),
    "mamba 2": Mamba2Config(**PURE_SIZES, num_heads=8, head_dim=8, n_groups=1, chunk_size=8),
    "qwen3-next": Qwen3NextConfig(
        **SIZES, **EXPERTS, **DELTA_SIZES, head_dim=8, num_experts=4, shared_expert_intermediate_size=16
    ),
    "qwen3.5": Qwen3_5TextConfig(**SIZES, **DELTA_SIZES, head_dim=8),
}
SIGHT = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
DEEP_SIGHT = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
HEARING = {
    "hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_mel_bins": 8,
}  # fmt: skip
SPACE_ROPE = ROPE | {"mrope_section": [1, 1, 2]}
PARTIAL_ROPE = ROPE | {"mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5}
UNTIED = {"tie_word_embeddings": False}
# These see or hear, too; they are given text alone.
MULTIMODAL: dict[str, PreTrainedConfig] = {
    "gemma3 with images": Gemma3Config(
        text_config=Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING),
        vision_config=SIGHT,
        mm_tokens_per_image=4,
        **UNTIED,
    ),
    "glm 4v": Glm4vConfig(
        text_config=SIZES
        | {"rope_parameters": SPACE_ROPE | {"partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}},
        vision_config=DEEP_SIGHT | {"image_size": 28},
        **UNTIED,
    ),
    "internvl": InternVLConfig(
        text_config=Qwen2Config(**SIZES),
        vision_config=SIGHT | {"image_size": [28, 28], "patch_size": [14, 14]},
        **UNTIED,
    ),
    "lfm2-vl": Lfm2VlConfig(
        text_config=Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]), vision_config=SIGHT, **UNTIED
    ),
    "llava": LlavaConfig(text_config=LlamaConfig(**SIZES), vision_config=CLIPVisionConfig(**SIGHT), **UNTIED),
    "mistral 3": Mistral3Config(
        text_config=MistralConfig(**SIZES), vision_config=PixtralVisionConfig(**SIGHT), **UNTIED
    ),
    "qwen2-vl": Qwen2VLConfig(
        text_config=SIZES | {"rope_parameters": SPACE_ROPE},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2},
        **UNTIED,
    ),
    "qwen2.5-vl": Qwen2_5_VLConfig(
        text_config=SIZES | {"rope_parameters": SPACE_ROPE}, vision_config=DEEP_SIGHT, **UNTIED
    ),
    "qwen3-vl": Qwen3VLConfig(
        text_config=SIZES | {"rope_parameters": SPACE_ROPE, "head_dim": 8},
        vision_config=DEEP_SIGHT | {"deepstack_visual_indexes": [0]},
        **UNTIED,
    ),
    "smolvlm": SmolVLMConfig(text_config=LlamaConfig(**SIZES), vision_config=SIGHT, **UNTIED),
    "voxtral": VoxtralConfig(text_config=LlamaConfig(**SIZES), audio_config=HEARING, **UNTIED),
}
BERT_SIZES = {key: SIZES[key] for key in SIZES if key not in ("num_key_value_heads", "pad_token_id")}
REFUSED: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**BERT_SIZES),
    "roberta": RobertaConfig(**BERT_SIZES),
    "gemma3 as an encoder": Gemma3TextConfig(**SIZES, head_dim=8, use_bidirectional_attention=True),
    "minimax": MiniMaxConfig(**SIZES, head_dim=8, num_local_experts=4, block_size=8),
    "openai-gpt": OpenAIGPTConfig(vocab_size=BYTES, n_embd=32, n_layer=2, n_head=4, n_positions=512),
    "recurrent-gemma": RecurrentGemmaConfig(
        **{key: SIZES[key] for key in SIZES if key != "max_position_embeddings"} | {"num_hidden_layers": 3},
        lru_width=32,
        attention_window_size=WINDOW,
    ),
    "paligemma": PaliGemmaConfig(
        text_config=GemmaConfig(**SIZES, head_dim=8),
        vision_config=SiglipVisionConfig(**SIGHT),
        projection_dim=32,
        **UNTIED,
    ),
    "rwkv": RwkvConfig(vocab_size=BYTES, hidden_size=32, num_hidden_layers=2, bos_token_id=None, eos_token_id=None),
    "xlm": XLMConfig(vocab_size=BYTES, emb_dim=8, n_layers=1, n_heads=2),
    "t5": T5Config(vocab_size=BYTES, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2),
}
# These have a last position.
LAST = 32
LIMITED: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(**GPT_SIZES | {"n_positions": LAST}),
    "mpt": MptConfig(vocab_size=BYTES, d_model=32, n_layers=2, n_heads=4, max_seq_len=LAST, **SPECIAL),
    "opt": OPTConfig(
        vocab_size=BYTES,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LAST,
        **SPECIAL,
    ),
}
# These give all positions other frequencies once a text is longer than RESCALED_FROM.
RESCALED_FROM = 64
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 4.0, 6.0, 8.0],
    "original_max_position_embeddings": RESCALED_FROM,
}
DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
RESCALED: dict[str, PreTrainedConfig] = {
    "phi3 with long rope": Phi3Config(
        **SIZES, rope_parameters=LONG_ROPE, original_max_position_embeddings=RESCALED_FROM
    ),
    "llama with dynamic rope": LlamaConfig(
        **SIZES | {"max_position_embeddings": RESCALED_FROM}, rope_parameters=DYNAMIC_ROPE
    ),
    "gemma3 with long rope in some layers": Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=ALTERNATING,
        rope_parameters={
            "sliding_attention": ROPE,
            "full_attention": LONG_ROPE,
        },
    ),
}


def random_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Weights large enough that greedy text does not settle on one token."""
    torch.manual_seed(seed)
    if isinstance(config, T5Config):
        return T5ForConditionalGeneration(config).eval()
    model: PreTrainedModel = model_class("a random model", config).from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(6)
    return model


def byte_vocabulary(order: list[int] | None = None) -> Vocabulary:
    """One token per byte; ``order[i]`` is the byte of id ``i``."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {characters[byte]: index for index, byte in enumerate(order or range(BYTES))}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Vocabulary(json.loads(tokenizer.to_str()))


def imperfect_copy(model: PreTrainedModel, order: list[int], noise: float = 0.05) -> PreTrainedModel:
    """A drafter that mostly agrees with ``model`` but numbers its tokens differently: its id ``i`` is ``order[i]``."""
    drafter = copy.deepcopy(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in drafter.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * noise)
        drafter.get_input_embeddings().weight.copy_(drafter.get_input_embeddings().weight[order].clone())
        if drafter.get_output_embeddings().weight is not drafter.get_input_embeddings().weight:
            drafter.get_output_embeddings().weight.copy_(drafter.get_output_embeddings().weight[order].clone())
    return drafter

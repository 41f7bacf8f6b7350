"""Models of other widths than 256."""


def set_width(cfg, width: int, num_layers: int = 2) -> None:
    """Give all parts of a model config another width, and few layers of little hidden size."""
    head = cfg.get('panoptic_head')
    if head:
        head.update(feat_channels=width, out_channels=width)
        head.positional_encoding.num_feats = width // 2
        pixel_decoder = head.pixel_decoder
        pixel_decoder.positional_encoding.num_feats = width // 2
        coders = [pixel_decoder.encoder, head.transformer_decoder]
    else:
        cfg.neck.out_channels = width
        cfg.positional_encoding.num_feats = width // 2
        cfg.bbox_head.embed_dims = width
        coders = [cfg.encoder, cfg.decoder]
    for coder in coders:
        coder.num_layers = num_layers
        coder.pop('num_cp', None)
        for name in ('self_attn_cfg', 'cross_attn_cfg', 'cross_attn_text_cfg', 'ffn_cfg'):
            if name in coder.layer_cfg:
                coder.layer_cfg[name].embed_dims = width
        coder.layer_cfg.ffn_cfg.feedforward_channels = 64
    if 'num_blocks' in coders[0]:  # a Lite encoder
        coders[0].num_blocks = 1
    for name in ('text_layer_cfg', 'fusion_layer_cfg'):  # of Grounding DINO
        if name in coders[0]:
            part = coders[0][name]
            for attention in ('self_attn_cfg', 'ffn_cfg'):
                if attention in part:
                    part[attention].embed_dims = width
            part.update({key: width for key in ('v_dim', 'l_dim') if key in part})
    if head:
        head.num_transformer_feat_level = 3

"""Swin-T, trained on ImageNet-1k, with the maps of strides 8 to 32: the paper's second backbone."""

swin_t = dict(
    type='SwinTransformer',
    embed_dims=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    window_size=7,
    mlp_ratio=4,
    drop_path_rate=0.2,
    patch_norm=True,
    out_indices=(1, 2, 3),
    convert_weights=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth',
    ),
)
swin_t_channels = [192, 384, 768]

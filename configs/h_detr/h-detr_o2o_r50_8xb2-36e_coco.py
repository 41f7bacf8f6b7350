"""H-DETR without one-to-many queries: its baseline, Deformable DETR with all other changes."""

_base_ = './h-detr_r50_8xb2-36e_coco.py'

model = dict(num_queries_one2many=0)

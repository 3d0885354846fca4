"""Reading files of `torch.save` without running anything that is in them (docs/decisions/checkpoints.md)."""

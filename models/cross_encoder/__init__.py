"""Cross-encoders: pairs as tokens, engines, logits."""

"""Training examples, fine-tuning, distillation, and the choice of engines."""

"""Fine-tuning: one loop; methods and objectives are functions given to it."""

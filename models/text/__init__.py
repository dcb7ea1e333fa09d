"""What is read of a text: words, passages, language, near duplicates; and Markdown tables."""

"""The commands of `rerankops`, a module each."""

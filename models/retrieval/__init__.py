"""First-stage retrieval: encoder, dense and lexical indexes, fusion, candidates."""

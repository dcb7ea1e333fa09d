"""Files of documents turned into text, in a process of its own."""

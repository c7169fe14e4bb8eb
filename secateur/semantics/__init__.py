"""What CLIP says: embeddings, and how well a label fits its picture."""

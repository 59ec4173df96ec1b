"""Who proposes candidates: one contract, and every way of keeping it."""

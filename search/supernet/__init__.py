"""FBNet's differentiable search: shared weights and architecture parameters, trained together."""

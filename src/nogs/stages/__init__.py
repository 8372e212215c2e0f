"""The verbs: one stage a file, each reading run directories and writing one. Stages never import stages."""

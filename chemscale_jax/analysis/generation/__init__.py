"""What a language model generates: metrics of sets of molecules, prompts."""

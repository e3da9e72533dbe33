"""Vocabularies as byte strings: what each token spells, and what two vocabularies share. Needs no torch."""

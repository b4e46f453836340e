"""Pages that people look at: elements that escape, sections, and what each input says."""

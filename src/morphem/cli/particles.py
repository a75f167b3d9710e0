"""Commands on particle tables: what is in them, smaller images, subsets, files for other programs."""

"""Files of vectors that `vidcls embed` wrote: nearest clips and near duplicates, exact, in blocks. Imports no torch."""

"""Plots of records: `kinds.figure(kind, source, options)`; see `source.Source`, `source.Options`, `sheet.save`."""

"""A researcher's own model or task at a hospital: installed by IT, approved by an officer, run where it does no harm.

Read ``docs/adr/0027`` first. ``isolation`` is the wall, ``worker`` stands behind it, ``children`` is the daemon's side,
``engine`` what training sees of it. The daemon imports nothing of a plugin.
"""

"""The projector: a Faust shell around `datarun.projection`, with the reaper beside it. It turns events into rows."""

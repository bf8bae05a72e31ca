"""liq_pipeline: early warning of crypto liquidation cascades. Importing it has no side effects.

The rooms, from the ground up; each may look at what stands before it, never at what comes after (docs/architecture.md):
  errors.py, domain/     one exception; records, worlds, units
  settings.py, bus/      every knob; Kafka
  scoring/               pure formulas
  store/                 everything that is a row
  sources/, alerting/    the outside world, read; what is said, and to whom
  pipeline/, runtime/    the steps of a tick; servers and processes
  collector/, evaluation/, launcher/, operations/, backup/
                         always-on streams; how good it is; warm Dagster runs; status, watch, doctor; a copy and
                         the way back
  replay/, defs/, desk/  a past day again; what Dagster runs when; the page and the API (`liq serve`)
  commands/, definitions.py, cli.py
                         the `liq` command and the one Definitions object
"""

"""Stand-in until the lead's module is merged."""


def dry_run(config):
  """Stand-in."""
  return [f'stand-in {config["experiment"]}']

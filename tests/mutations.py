"""Random damage to files and to the JSON in them."""

import json

JUNK = [
  None, -1, 0, 2**40, 2**70, 1e308, 'x', '', 'nan', 'done', '<b>', [], {}, [[]],
  True, [1, 'x'], {'a': 1}, [2**40], [-1], [0, 2**42],
]  # fmt: skip


def edit(random, value, names=('q',)):
  """Returns JSON with one value replaced, left out, or under another name."""
  if not value or not isinstance(value, (dict, list)) or random.random() < 0.1:
    return random.choice(JUNK)
  items = value.copy()
  keys = list(value) if isinstance(value, dict) else range(len(value))
  key = random.choice(keys)
  if random.random() < 0.2:
    del items[key]
  elif isinstance(value, dict) and random.random() < 0.2:
    items[random.choice(names)] = items.pop(key)
  else:
    items[key] = edit(random, items[key], names)
  return items


def damage(random, content):
  """Returns bytes that are cut, or have a bit or a run of bytes altered."""
  at = random.randrange(len(content) or 1)
  kind = random.randrange(3)
  if kind == 0:
    return content[:at]
  if kind == 1:
    return content[:at] + random.randbytes(30) + content[at:]
  flipped = bytearray(content or b'?')
  flipped[at] ^= 1 << random.randrange(8)
  return bytes(flipped)


def damage_json(random, path):
  """Damages a file of JSON or of lines of JSON, or deletes it."""
  content = path.read_bytes()
  kind = random.randrange(8)
  if kind == 0:
    path.unlink()
  elif kind == 1:
    path.write_bytes(damage(random, content))
  elif kind == 2:
    path.write_text(json.dumps(random.choice(JUNK)))
  elif path.suffix == '.jsonl':
    rows = edit(random, [json.loads(line) for line in content.splitlines()])
    rows = rows if isinstance(rows, list) else [rows]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  else:
    path.write_text(json.dumps(edit(random, json.loads(content))))

#!/usr/bin/env python3
"""Expected results of the click counter and the even/odd sums.

    seeds.py clicks --corpus DIR --output DIR        visits per user, counted again from the clicks that were dumped
    seeds.py even-odd --output DIR                    the sums of blue 1..3 and yellow 1..4, which are known in advance
"""

import argparse
from collections import Counter

from rows import compare, final_table, key, read_rows

USERS = {"Mary", "Alice", "Bob", "Cary"}
URLS = {"./home", "./cart", "./fav", "./prod?id=1", "./prod?id=2"}


def clicks(corpus):
    visits = Counter()
    for click in read_rows(corpus):
        if click["user"] not in USERS or click["url"] not in URLS:
            raise SystemExit(f"not a click of the example: {click}")
        visits[click["user"]] += 1
    if set(visits) != USERS:
        raise SystemExit(f"only {sorted(visits)} clicked: the dump is too short to check anything")
    return Counter(key({"user": user, "visits": count}) for user, count in visits.items())


def even_odd():
    sums = Counter()
    for number in [1, 2, 3] + [1, 2, 3, 4]:
        sums["odd" if number % 2 else "even"] += number
    return Counter(key({"parity": parity, "total": total}) for parity, total in sums.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=["clicks", "even-odd"])
    parser.add_argument("--corpus")
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    if arguments.job == "clicks":
        if not arguments.corpus:
            parser.error("clicks needs --corpus")
        expected = clicks(arguments.corpus)
    else:
        expected = even_odd()
    compare(arguments.job, expected, final_table(read_rows(arguments.output)))


if __name__ == "__main__":
    main()

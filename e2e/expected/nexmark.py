#!/usr/bin/env python3
"""Expected results of the Nexmark jobs, computed from a dump of the very events that they read.

It shares no code with the engine: plain Python over JSON lines. Compares whole multisets of rows; for jobs with an
updating result it adds +I and +U rows and takes -U and -D rows away, so that what remains is the final table.

    nexmark.py QUERY --corpus FILE_OR_DIR --output DIR      exit code 1 and the first differences when they are not equal
"""

import argparse
import re
import sys
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from decimal import Decimal

from rows import compare, final_table, key, read_rows

CHANNEL_ID = re.compile(r"(&|^)channel_id=([^&]*)")
HOT_CHANNELS = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
EURO = Decimal("0.908")


def timestamp(text):
    return datetime.fromisoformat(text.replace("T", " ").rstrip("Z"))


def written(moment):
    """As the JSON format writes a TIMESTAMP(3): fraction only when there is one."""
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    if moment.microsecond:
        text += f".{moment.microsecond // 1000:03d}".rstrip("0")
    return text


def moment_of(row):
    """Rows compare by the moment, not by how its zeros are written."""
    return written(timestamp(row))


def tumble(moment, seconds):
    start = moment - timedelta(
        seconds=(moment - datetime(1970, 1, 1)).total_seconds() % seconds,
    )
    return start, start + timedelta(seconds=seconds)


def channel_id(url):
    match = CHANNEL_ID.search(url)
    return match.group(2) if match else None


def directory(url, index):
    parts = url.split("/")
    return parts[index] if index < len(parts) else None


def time_of_day(hour):
    if 8 <= hour <= 18:
        return "dayTime"
    if hour <= 6 or hour >= 20:
        return "nightTime"
    return "otherTime"


def q0(bids):
    for bid in bids:
        yield {
            "auction": bid["auction"],
            "bidder": bid["bidder"],
            "price": bid["price"],
            "dateTime": moment_of(bid["dateTime"]),
            "extra": bid["extra"],
        }


def q1(bids):
    for row in q0(bids):
        yield {**row, "price": EURO * row["price"]}


def q2(bids):
    for bid in bids:
        if bid["auction"] % 123 == 0:
            yield {"auction": bid["auction"], "price": bid["price"]}


def q7_window_maximum(bids, seconds=10):
    highest = {}
    for bid in bids:
        window = tumble(timestamp(bid["dateTime"]), seconds)
        highest[window] = max(highest.get(window, bid["price"]), bid["price"])
    for (_, end), price in highest.items():
        yield {"maxprice": price, "dateTime": written(end)}


def q14(bids):
    for bid in bids:
        price = EURO * bid["price"]
        if 1_000_000 < price < 50_000_000:
            yield {
                "auction": bid["auction"],
                "bidder": bid["bidder"],
                "price": price,
                "bidTimeType": time_of_day(timestamp(bid["dateTime"]).hour),
                "dateTime": moment_of(bid["dateTime"]),
                "extra": bid["extra"],
                "c_counts": bid["extra"].count("c"),
            }


def q17(bids):
    prices = defaultdict(list)
    for bid in bids:
        prices[(bid["auction"], timestamp(bid["dateTime"]).strftime("%Y-%m-%d"))].append(bid["price"])
    for (auction, day), of_day in prices.items():
        yield {
            "auction": auction,
            "day": day,
            "total_bids": len(of_day),
            "rank1_bids": sum(price < 10_000 for price in of_day),
            "rank2_bids": sum(10_000 <= price < 1_000_000 for price in of_day),
            "rank3_bids": sum(price >= 1_000_000 for price in of_day),
            "min_price": min(of_day),
            "max_price": max(of_day),
            "avg_price": sum(of_day) // len(of_day),
            "sum_price": sum(of_day),
        }


def q21(bids):
    for bid in bids:
        hot = HOT_CHANNELS.get(bid["channel"].lower())
        found = channel_id(bid["url"])
        if hot is not None or found is not None:
            yield {
                "auction": bid["auction"],
                "bidder": bid["bidder"],
                "price": bid["price"],
                "channel": bid["channel"],
                "channel_id": found if hot is None else hot,
            }


def q22(bids):
    for bid in bids:
        yield {
            "auction": bid["auction"],
            "bidder": bid["bidder"],
            "price": bid["price"],
            "channel": bid["channel"],
            "dir1": directory(bid["url"], 3),
            "dir2": directory(bid["url"], 4),
            "dir3": directory(bid["url"], 5),
        }


def quickstart(bids):
    """Bids of the four big channels in each second of event time."""
    prices = defaultdict(list)
    for bid in bids:
        if bid["channel"].lower() in HOT_CHANNELS:
            prices[(tumble(timestamp(bid["dateTime"]), 1), bid["channel"])].append(bid["price"])
    for ((start, end), channel), of_window in prices.items():
        yield {
            "window_start": written(start),
            "window_end": written(end),
            "channel": channel,
            "bids": len(of_window),
            "revenue": sum(of_window),
            "highest": max(of_window),
        }


def accounts(bids):
    """Bids and money of every bidder: many keys, an updating result."""
    totals = defaultdict(lambda: [0, 0])
    for bid in bids:
        total = totals[bid["bidder"]]
        total[0] += 1
        total[1] += bid["price"]
    for bidder, (count, money) in totals.items():
        yield {"bidder": bidder, "bids": count, "spent": money}


QUERIES = {
    "q0": q0,
    "q1": q1,
    "q2": q2,
    "q7": q7_window_maximum,
    "q14": q14,
    "q17": q17,
    "q21": q21,
    "q22": q22,
    "quickstart": quickstart,
    "accounts": accounts,
}
MOMENTS = {"dateTime", "window_start", "window_end"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("query", choices=sorted(QUERIES))
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--window", type=int, default=10, help="seconds of the window of q7")
    parser.add_argument("--repeated", action="store_true", help="rows may be there more than once, but none may be missing or wrong")
    parser.add_argument("--lost", action="store_true", help="rows may be missing, but none may be there twice or be wrong")
    arguments = parser.parse_args()

    bids = (event["bid"] for event in read_rows(arguments.corpus) if event["event_type"] == 2)
    query = QUERIES[arguments.query]
    rows = query(bids, arguments.window) if query is q7_window_maximum else query(bids)
    expected = Counter(map(key, rows))
    if not expected:
        sys.exit("the corpus leads to no expected row: nothing would be checked")
    found = final_table(map(same_moments, read_rows(arguments.output)))
    if arguments.repeated:
        found = Counter(found.keys())
    if arguments.lost:
        if not found:
            sys.exit("no row at all: nothing would be checked")
        expected &= found
    compare(arguments.query, expected, found)


def same_moments(row):
    return {name: moment_of(value) if name in MOMENTS else value for name, value in row.items()}


if __name__ == "__main__":
    main()

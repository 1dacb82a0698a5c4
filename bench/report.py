# SPDX-License-Identifier: Apache-2.0
"""Tables, the summary against the targets and the changes since an earlier run, all from results as JSON has them."""
import math
import sys

from rows import (BEST_PEER_TARGET, CHECKPOINT_STEPS, CHECKPOINT_TARGET, CHECKPOINTS_NAME, FLOOR, LINEAR_SCAN_NAME,
                  LM_NAME, LM_TARGET, LOOK_TARGETS, LYAPUNOV_TARGET, MEAN_TARGET, OPTION_TARGETS, OPTIONS_NAME, PEAK_TARGET,
                  ROWS)

TORCH = "PyTorch"


# ---- what counts ----
def best(row, side):
    return min(row["min_ms"][side]) if row["min_ms"].get(side) else None


def speed(row, side, against):
    """How many times as fast; None where one of the two did not run the row."""
    mine, theirs = best(row, side), best(row, against)
    return theirs / mine if mine and theirs else None


def opencl_sides(results):
    return [name for name, side in results["sides"].items() if side["ours"] and side["peak"]]


def peers(results):
    return [name for name, side in results["sides"].items() if not side["ours"]]


def best_peer(results, row, side):
    """The fastest peer; of PyTorch with wide and with narrow vectors the one that counts for this side."""
    others = [p for p in peers(results) if not p.startswith(TORCH)] + [results["sides"][side]["against"]]
    times = [best(row, peer) for peer in others if peer and best(row, peer)]
    return min(times) / best(row, side) if times and best(row, side) else None


def of_peak(results, row, side):
    """The part of the implementation's own peak that a row reaches, where multiply-adds are what limits it."""
    if row.get("limited_by") != "FMA" or not best(row, side):
        return None
    return row["gflop"] * 1e3 / best(row, side) / results["sides"][side]["peak"]["gflops"]


def floor_of(row):
    return row.get("floor", FLOOR)


def mean(values):
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else None


# ---- tables ----
def table(head, lines):
    """Markdown that reads well as text: the first column to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return "\n".join("| " + " | ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                                       for i, (cell, w) in enumerate(zip(line, widths))) + " |"
                     for line in [head, rule, *lines])


def ms(value):
    return "" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def ratio(value):
    return "" if value is None else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def title_of(row):
    return row["name"].replace(", training", "")


def times_table(rows):
    sides = [side for side in rows[0]["min_ms"]]
    lines = [[title_of(row), ms(row["limit_ms"]), row["limited_by"], *[ms(best(row, side)) for side in sides]]
             for row in rows]
    return table(["milliseconds", "limit", "set by", *sides], lines)


def ratios_table(results, rows):
    head, cells = ["ratio of speeds"], [[title_of(row)] for row in rows]
    forward = not rows[0]["train"]
    for side in opencl_sides(results):
        columns = [(p, [ratio(speed(row, side, p)) for row in rows]) for p in counted(results, side)]
        if forward and len(peers(results)) > len(columns):
            columns.append(("best peer", [ratio(best_peer(results, row, side)) for row in rows]))
        columns.append(("OpenCL peak", [ratio(of_peak(results, row, side)) for row in rows]))
        columns.append(("limit", [ratio(row["limit_ms"] / best(row, side)) for row in rows]))
        for name, values in columns:
            head.append(f"{side} : {name}")
            for line, value in zip(cells, values):
                line.append(value)
    return table(head, cells)


def counted(results, side):
    """PyTorch as it is, and where that is another one, the PyTorch that counts."""
    against = results["sides"][side]["against"]
    return [p for p in dict.fromkeys([TORCH, against]) if p in results["sides"]]


def lm_table(results):
    lm = results["lm"]
    rates = {side: max(values) for side, values in lm["chars_per_s"].items()}
    against = [p for p in rates if p.startswith(TORCH)]
    lines = [[side, f"{rate:,.0f}", ms(lm["steps"] * lm["batch"] / rate * 1e3),
              *[ratio(rate / rates[p]) for p in against]] for side, rate in rates.items()]
    return table(["", "characters/s", "ms an update", *[f"to {p}" for p in against]], lines)


def dispatch_part(dispatch):
    return ["Microseconds before any arithmetic, best of the run, on tensors of one element: a run that is waited for, "
            "a step of a scan of 1000 with one op, each further op, a step of an LSTM, and a streaming step: T 1, B 1, "
            "x written, run from the state that the last one left, y read. `null` computes nothing: what it shows is "
            "this library's own part; with `alone=1` every node is a call, at every step. A call of a function through "
            f"a pointer took {dispatch[0]['call_ns'] / 1e3:.4f}.",
            table(["device", "run", "step", "op", "LSTM step", "streaming step"],
                  [[" ".join([d.get("side", d["device"]), d["options"]]).strip(), f"{d['run_us']:.3f}",
                    f"{d['step_us']:.4f}", f"{d['op_us']:.4f}", f"{d['lstm_step_us']:.4f}", f"{d['stream_us']:.3f}"]
                   for d in dispatch])]


def linear_scan_part(found):
    return [f"{LINEAR_SCAN_NAME}, f32, h = a·h + b over all steps, and the gradient: the speed is to that of a plain loop in C "
            "on one thread and, in bytes that have to be moved (3 arrays, 5 for the gradient), to what memory gives all "
            "threads that add two arrays into a third, all in turns in the same run.",
            table(["device", "memory GB/s", "forward ms", "to the loop", "to memory", "gradient ms", "to the loop",
                   "to memory"],
                  [[d["side"], f"{d['memory_gbs']:.1f}", ms(d["forward_ms"]), ratio(d["forward_to_plain"]),
                    ratio(d["forward_to_memory"]), ms(d["gradient_ms"]), ratio(d["gradient_to_plain"]),
                    ratio(d["gradient_to_memory"])] for d in found])]


def megabytes(n):
    return f"{n / 1e6:.1f}"


def checkpoints_part(found):
    counts = ", ".join(f"{n} with {m}" for m, n in found[0]["table"].items())
    as_published = all(d["table"] == CHECKPOINT_STEPS for d in found)
    other = [d["side"] for d in found if not d["same_bits"]]
    yield (f"{CHECKPOINTS_NAME}, f32, forward and gradient: all steps kept, and within a tenth of their bytes by checkpoints, in "
           "turns. Saved: what the gradient needs of the forward pass, and the gradients of gates. In all: every byte that "
           "a run plans, inputs and outputs among them. Segments of one step would take, of 1000 steps and by states kept, "
           f"{counts}: {'as published' if as_published else 'NOT as published'}. The gradients have "
           + (f"OTHER BITS on {', '.join(other)}." if other else "the same bits."))
    yield table(["device", "all ms", "a tenth ms", "time", "forward steps", "saved MB", "a tenth MB", "all in all MB",
                 "a tenth in all MB"],
                [[d["side"], ms(d["all_ms"]), ms(d["ms"]), ratio(d["ms"] / d["all_ms"]), str(d["forward_steps"]),
                  megabytes(d["saved_bytes"]), megabytes(d["bytes"]), megabytes(d["all_peak"]), megabytes(d["peak"])]
                 for d in found])
    yield ("Truncated backpropagation of the same layer in windows of 100 steps, beside whole sequences: bytes of a run in "
           "all, and what the process grew by from the sequence's step 1000 to its step 4000.")
    lengths = list(found[0]["whole"])
    yield table(["MB", "windows", "grown", *[f"T {length}" for length in lengths]],
                [[d["side"], megabytes(d["window_bytes"]), megabytes(d["window_grown"]),
                  *[megabytes(d["whole"][length]) for length in lengths]] for d in found])


def options_part(found):
    names = list(found[0]["ms"])
    yield (f"{OPTIONS_NAME}, f32, forward and gradient, in turns: the time without options, and how many times as long "
           "dropout of x and h by one mask each for all steps (variational), dropout of W_h (recurrent), zoneout of h and c, "
           "and layer normalisation take.")
    yield table(["device", "none ms", *[name.replace("_", " ") for name in names[1:]]],
                [[d["side"], ms(d["ms"]["none"]), *[ratio(d["ms"][name] / d["ms"]["none"]) for name in names[1:]]]
                 for d in found])
    with_words = [d for d in found if "ways" in d]
    if not with_words:
        return
    ways = list(with_words[0]["ways"])
    paddings = ", ".join(f"{name.replace('_', ' ')} {way['padding']:.1%}" for name, way in with_words[0]["ways"].items())
    yield (f"Batches of 64 of the {with_words[0]['words']:,} words of the CMU pronouncing dictionary, none longer than "
           f"{with_words[0]['longest']} letters, an LSTM of 128 that learns each letter from those before: padded to the longest "
           f"of all, to the longest of the batch, and with words of like length together. Padding: {paddings}. Letters a "
           "second, and how many times as many as with batches padded to their longest:")
    yield table(["device", *[name.replace("_", " ") for name in ways], "by length : batch"],
                [[d["side"], *[f"{d['ways'][name]['letters_per_s']:,.0f}" for name in ways],
                  ratio(d["ways"]["by_length"]["letters_per_s"] / d["ways"]["longest_of_batch"]["letters_per_s"])]
                 for d in with_words])


def flow_rows(results, side):
    """{(cell, dtype): its times in ms}"""
    return {(row["cell"], row["dtype"]): row["ms"] for found in results["flow"] if found["side"] == side
            for row in found["rows"]}


def norms_to(results, side, against):
    """How many times as fast as the other an update is that has the norms too, of each cell and type."""
    theirs = flow_rows(results, against)
    return {key: theirs[key]["norms"] / (ms["update"] + ms["norms"]) for key, ms in flow_rows(results, side).items()
            if key in theirs}


def flow_part(results):
    found = [d for d in results["flow"] if results["sides"][d["side"]]["ours"]]
    torches = [d["side"] for d in results["flow"] if not results["sides"][d["side"]]["ours"]]
    d = found[0]
    yield (f"Diagnosis, the flow of gradients, T{d['steps']} B{d['batch']} I{d['input']} H{d['hidden']}, one layer, of the GRU "
           "two: how many training updates (loss, gradients, SGD) it takes to find the gradients' norms at every step; these and "
           "the norms of Jacobian products of all lags; these and the largest singular values at a dozen lags. Graphs are "
           "built and compiled in it." + (" The last columns: the speed of an update together with norms, to PyTorch, which gets "
           "them from cells run one by one, with `retain_grad` on every state." if torches else ""))
    lines = []
    for d in found:
        faster = {name: norms_to(results, d["side"], name) for name in torches}
        for row in d["rows"]:
            times = row["ms"]
            lines.append([f"{d['side']}, {row['cell'].split('_')[0].upper()} {row['dtype']}", ms(times["update"]),
                          *[ratio(times[look] / times["update"]) for look in ("norms", "products", "sigma")],
                          *[ratio(faster[name].get((row["cell"], row["dtype"]))) for name in torches]])
    yield table(["updates", "update ms", "norms", "products", "singular values", *[f": {name}" for name in torches]], lines)


def lyapunov_part(found):
    beside = ", ".join(f"{name} {told['seconds']:.1f} ({ratio(told['seconds'] / found['seconds'])} times as long)"
                       for name, told in found["peers"].items())
    yield (f"Diagnosis, the whole Lyapunov spectrum of an LSTM of {found['hidden']} units in double, {found['steps']:,} steps, a "
           f"decomposition every {found['every']}, on the host: {found['seconds']:.1f} s"
           + (f"; with torch.func.jvp of every column at once and torch.linalg.qr {beside}."
              if beside else "."))


# ---- the summary ----
def verdict(side, what, value, target, met, names=()):
    return {"side": side, "what": what, "value": value, "target": target, "met": met, "names": list(names)}


def judge_mean(side, what, values, target):
    value = mean(values)
    return verdict(side, what, ratio(value), f"at least {ratio(target)}", value >= target)


def judge_time(side, what, value, most):
    return verdict(side, what, ratio(value), f"at most {ratio(most)}", value <= most)


def judge_rows(side, what, rows, fails, shown):
    """Rows that fail, with what each has."""
    failing = [(row, shown(row)) for row in rows if fails(row)]
    return verdict(side, what, f"{len(failing)} of {len(rows)}", "0", not failing,
                   [f"{row['name']} ({ratio(value)})" for row, value in failing])


def judge_side(results, side):
    against = results["sides"][side]["against"]
    rows = [row for row in results["rows"] if speed(row, side, against)]
    if rows:
        values = [speed(row, side, against) for row in rows]
        yield judge_mean(side, f"speed to PyTorch, geometric mean, {len(rows)} rows", values, MEAN_TARGET)
    forward = [row for row in rows if not row["train"]]
    if forward and len([p for p in peers(results) if not p.startswith(TORCH)]) > 0:
        values = [best_peer(results, row, side) for row in forward]
        yield judge_mean(side, f"speed to the best peer, geometric mean, {len(forward)} forward rows", values,
                         BEST_PEER_TARGET)
    if rows:
        yield judge_rows(side, "rows below their floor to PyTorch", rows,
                         lambda row: speed(row, side, against) < floor_of(row), lambda row: speed(row, side, against))
    bound = [row for row in results["rows"] if of_peak(results, row, side)]
    if bound:
        yield judge_rows(side, f"compute-bound rows below {PEAK_TARGET:.0%} of the OpenCL peak", bound,
                         lambda row: of_peak(results, row, side) < PEAK_TARGET, lambda row: of_peak(results, row, side))
    rates = results["lm"].get("chars_per_s", {}) if results["lm"] else {}
    if rates.get(side) and rates.get(against):
        values = [max(rates[side]) / max(rates[against])]
        yield judge_mean(side, f"{LM_NAME}, characters/s to PyTorch", values, LM_TARGET)
    yield from judge_times(results, side)


def judge_times(results, side):
    """Against the same without it."""
    for found in results["checkpoints"]:
        if found["side"] == side:
            yield judge_time(side, "checkpoints in a tenth of the bytes, time", found["ms"] / found["all_ms"],
                             CHECKPOINT_TARGET)
    for found in results["options"]:
        for name, most in OPTION_TARGETS.items():
            if found["side"] == side:
                what = {"layer_norm": "layer normalisation", "zoneout": "zoneout"}.get(name, f"{name} dropout")
                yield judge_time(side, f"{what}, time", found["ms"][name] / found["ms"]["none"], most)


def judge_looks(results, side):
    """Of the slowest cell."""
    rows = flow_rows(results, side)
    against = results["sides"][side].get("against")
    for dtype in dict.fromkeys(dtype for _, dtype in rows):
        for look, most in LOOK_TARGETS.items():
            value = max(ms[look] / ms["update"] for (_, of), ms in rows.items() if of == dtype)
            what = {"norms": "norms of gradients", "sigma": "singular values at 12 lags"}[look]
            yield judge_time(side, f"{what}, {dtype}, in updates", value, most)
        values = [v for (_, of), v in norms_to(results, side, against).items() if of == dtype]
        if values:
            yield verdict(side, f"an update with norms, {dtype}, speed to PyTorch", ratio(min(values)),
                          f"at least {ratio(FLOOR)}", min(values) >= FLOOR)


def judge_lyapunov(results):
    found = results["lyapunov"]
    yield verdict("cpu", "Lyapunov spectrum, seconds", f"{found['seconds']:.1f}", f"at most {LYAPUNOV_TARGET}",
                  found["seconds"] <= LYAPUNOV_TARGET)
    if TORCH in found["peers"]:
        value = found["peers"][TORCH]["seconds"] / found["seconds"]
        yield verdict("cpu", "Lyapunov spectrum, speed to PyTorch", ratio(value), f"at least {ratio(FLOOR)}", value >= FLOOR)


def judge_gpu(results, side):
    for row in results["rows"]:
        mine, value, ran_in = best(row, side), speed(row, side, TORCH), row["precisions"].get(side)
        same = ran_in == row["precision"]
        note = "" if same else f" in {ran_in}"
        if "target_ms" in row and mine:
            yield verdict(side, row["name"], f"{ms(mine)} ms{note}", f"at most {row['target_ms']} ms",
                          same and mine <= row["target_ms"])
        elif value:
            yield verdict(side, row["name"], ratio(value) + note, f"at least {ratio(row['target'])}",
                          same and value >= row["target"])


def summarise(results):
    judge = judge_gpu if results["about"]["gpu"] else judge_side
    items = [item for side in opencl_sides(results) for item in judge(results, side)]
    items += [item for name, side in results["sides"].items() if side["ours"] for item in judge_looks(results, name)]
    return items + (list(judge_lyapunov(results)) if results["lyapunov"] else [])


def summary_part(results):
    """A line for each target, a column for each implementation, and below them the rows that are named."""
    items = results["summary"]
    if not items:
        return []
    sides = list(dict.fromkeys(item["side"] for item in items))
    lines = []
    for what in dict.fromkeys(item["what"] for item in items):
        of = {item["side"]: item for item in items if item["what"] == what}
        shown = [f"{of[s]['value']} {'met' if of[s]['met'] else 'MISSED'}" if s in of else "" for s in sides]
        lines.append([what, next(iter(of.values()))["target"], *shown])
    parts = [table(["", "target", *sides], lines)]
    parts += [f"{item['side']}, {item['what']}: {', '.join(item['names'])}." for item in items if item["names"]]
    for side in sides:
        against = results["sides"][side].get("against")
        if against and against != TORCH and TORCH in results["sides"]:
            values = [v for v in (speed(row, side, TORCH) for row in results["rows"]) if v]
            parts.append(f"{side} compiles to {results['sides'][side]['isa']} only: {against} is the PyTorch that "
                         f"counts. To PyTorch with all vectors the geometric mean is {ratio(mean(values))}.")
    if results["about"]["gpu"]:
        return parts
    if len(results["rows"]) < len(ROWS):
        parts.append(f"{len(results['rows'])} of {len(ROWS)} rows were measured: no proof.")
    return parts


# ---- the document ----
def about_part(results):
    about = results["about"]
    told = [f"{about['processor']}, {about['cores']} cores, {about['system']}", about["unroll"][0]]
    for name, side in results["sides"].items():
        if side["ours"] and side["peak"]:
            peak = side["peak"]
            told.append(f"{name}: {peak['device']}, {peak['platform']}, driver {peak['driver']}")
        elif not side["ours"]:
            extra = f", {side['capability']}" if "capability" in side else ""
            told.append(f"{name} {side['version']} ({side['threads']} threads{extra})")
    return ("; ".join(told) + f". {about['seconds']} s, {about['rounds']} rounds; other programs used "
            f"{about['cores_used_by_others']} cores at the start.")


def limits_part(results):
    limits, told = results["limits"], []
    if limits:
        cores = ", ".join(f"{key[:-len('_core_gflops')]} {value:.0f}" for key, value in limits.items()
                          if key.endswith("_core_gflops"))
        told.append(f"The machine's limits, best of the run, {limits['isa']}, {limits['threads']} threads: "
                    f"{limits['gflops']:.0f} GFLOP/s; one core {cores}; reads from L2 "
                    f"{limits['l2_gbs']:.0f}, L3 {limits['l3_gbs']:.0f}, memory {limits['memory_gbs']:.0f} GB/s.")
    for name in opencl_sides(results):
        peak = results["sides"][name]["peak"]
        levels = ("memory",) if results["about"]["gpu"] else ("L2", "L3", "memory")
        reads = ", ".join(f"{what} {rate:.0f}" for what, rate in zip(levels, peak["read_gbs"]))
        told.append(f"OpenCL kernels reach on {name} {peak['gflops']:.0f} GFLOP/s with float{peak['lanes']}, in "
                    f"one work-group {peak['group_gflops']:.0f}" + (f"; reads from {reads} GB/s." if reads else "."))
    return " ".join(told)


def gpu_table(results):
    sides = list(results["rows"][0]["min_ms"])
    lines = []
    for row in results["rows"]:
        note = [f"{side} in {row['precisions'][side]}" for side in sides
                if row["precisions"].get(side, row["precision"]) != row["precision"]]
        lines.append([row["name"] + (f" ({', '.join(note)})" if note else ""), *[ms(best(row, side)) for side in sides],
                      *[ratio(speed(row, side, TORCH)) for side in opencl_sides(results)]])
    return table(["milliseconds", *sides, *[f"{side} : {TORCH}" for side in opencl_sides(results)]], lines)


def markdown(results):
    lm = results["lm"]
    parts = [about_part(results), limits_part(results), *summary_part(results)]
    if lm:
        parts += [f"Training the character model: {lm['layers']} LSTM layers of {lm['hidden']}, embedding "
                  f"{lm['embedding']}, {lm['vocabulary']} characters, batch {lm['batch']}, {lm['steps']} steps, Adam, "
                  "clipping.", lm_table(results)]
    if results["about"]["gpu"] and results["rows"]:
        parts.append(gpu_table(results))
    else:
        for train, title in ((False, "Layers, forward:"), (True, "Layers, forward and gradients:")):
            rows = [row for row in results["rows"] if row["train"] == train]
            if rows:
                parts += [title, times_table(rows)]
                parts += [ratios_table(results, rows)] if opencl_sides(results) else []
    parts += [f"{n} nodes of {row['name']} did not run on {side} but fell back to cpu." for row in results["rows"]
              for side, n in row["fallbacks"].items() if n]
    if results["linear_scan"]:
        parts += linear_scan_part(results["linear_scan"])
    if results["checkpoints"]:
        parts += checkpoints_part(results["checkpoints"])
    if results["options"]:
        parts += options_part(results["options"])
    if results["flow"]:
        parts += flow_part(results)
    if results["lyapunov"]:
        parts += lyapunov_part(results["lyapunov"])
    if results["dispatch"]:
        parts += dispatch_part(results["dispatch"])
    return "\n\n".join(part for part in parts if part) + "\n"


def changes(results, before):
    """How the ratios to PyTorch changed since other results, row by row."""
    old_rows = {row["name"]: row for row in before["rows"]}
    parts = []
    for side in opencl_sides(results):
        against = results["sides"][side]["against"]
        pairs = []
        for row in results["rows"]:
            old = old_rows.get(row["name"])
            then = old and (speed(old, side, against) or speed(old, side, TORCH))
            if then and speed(row, side, against):
                pairs.append((row["name"], then, speed(row, side, against)))
        rates, old_rates = (r["lm"].get("chars_per_s", {}) if r["lm"] else {} for r in (results, before))
        if all(r.get(p) for r in (rates, old_rates) for p in (side, against)):
            pairs.append((LM_NAME, *[max(r[side]) / max(r[against]) for r in (old_rates, rates)]))
        if not pairs:
            parts.append(f"{side}: the earlier results have no row in common.")
            continue
        pairs.append(("geometric mean", *[mean([pair[k] for pair in pairs]) for k in (1, 2)]))
        parts.append(table([f"{side} : {against}", "before", "now", "change"],
                           [[name, ratio(then), ratio(now), f"{now / then - 1:+.0%}"] for name, then, now in pairs]))
    return "\n\n".join(parts) + "\n"


def put_into(path, text):
    """Replaces what stands between the two marks of a document."""
    first, last = "<!-- results of script/bench -->\n", "<!-- end of results -->\n"
    with open(path, encoding="utf-8") as file:
        before, found, rest = file.read().partition(first)
    _, ended, after = rest.partition(last)
    if not found or not ended:
        sys.exit(f"bench: {path} lacks the lines {first.strip()} and {last.strip()}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + first + "\n" + text + "\n" + last + after)

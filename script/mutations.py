# SPDX-License-Identifier: Apache-2.0
"""Changes of a kernel's text in one place, for script/mutate. OpenCL C is read as tokens, with little of its grammar."""
import dataclasses
import re

TOKEN = re.compile(r"""(?P<space>[ \t]+|\\\n)|(?P<newline>\n)|(?P<comment>/\*.*?\*/|//[^\n]*)|(?P<string>"[^"\n]*")
    |(?P<name>[A-Za-z_]\w*)
    |(?P<number>0[xX][0-9A-Fa-f]+(?:\.[0-9A-Fa-f]*)?[pP][-+]?\d+f?|0[xX][0-9A-Fa-f]+[uUlL]*|\d+\.\d*(?:[eE][-+]?\d+)?f?|\d+[uUlL]*)
    |(?P<sign><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||\#\#|[-+*/%&|^]=|.)""", re.VERBOSE | re.DOTALL)

TYPES = {"bits_t", "bool", "char", "double", "float", "in_t", "in_v", "int", "long", "out_t", "out_v", "real", "short",
         "type", "uchar", "uint", "ulong", "unroll_philox_key", "ushort", "vec", "void", "walk", "words",
         "item", "job", "loose_vec", "panel", "places", "real4"}
DECLARES = TYPES | {"const", "static", "typedef", "struct", "__local", "__kernel", "__global", "__attribute__"}
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*", "+=": "-=", "-=": "+=", "*=": "/="}
BITWISE = {"&": "|", "|": "&", "^": "&", "<<": ">>", ">>": "<<", "|=": "&="}
COMPARISON = {"<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"), "==": ("!=",), "!=": ("==",)}
LOGICAL = {"&&": "||", "||": "&&"}
# What a slip of the hand would take for each other.
ALIKE = [("row", "column"), ("m", "n"), ("M", "N"), ("N", "K"), ("m0", "n0"), ("k0", "k1"), ("i", "j"),
         ("first", "last"), ("a", "b"), ("s1", "s2"), ("s1_at", "s2_at"), ("beta1", "beta2"), ("rest1", "rest2"), ("tiles_m", "tiles_n"),
         ("key0", "key1"), ("h", "c"), ("dh", "dc"), ("r", "z"), ("f", "i"), ("g", "o"), ("batch", "block"),
         ("id", "row"), ("ROWS", "COLUMNS"), ("T", "B"), ("B", "R"), ("whole", "last"), ("total", "sum"), ("d_r", "d_z"), ("t", "b"),
         ("a_batch", "b_batch"), ("above", "count"), ("x", "y"), ("c0", "c1"), ("c2", "c3"), ("low0", "low1"),
         ("high0", "high1"), ("V", "E"), ("v", "e"), ("before", "y"), ("d_n", "d_r"), ("limit", "trial"), ("R", "I"),
         ("rate1", "rate"), ("m", "v"), ("p", "g"), ("p", "q"), ("parts", "panels"), ("as", "bs"), ("strips", "tiles"),
         ("h_prev", "h_next"), ("c_prev", "c_next"), ("before", "after"), ("first", "count"), ("block", "blocks"),
         ("row", "unit"), ("active", "fed"), ("later", "t"), ("block0", "block1"), ("piece", "pieces"), ("H", "S"),
         ("x", "h"), ("rows", "active"), ("split", "block"), ("lane", "id"), ("d", "d_hidden"), ("carry", "dc")]


@dataclasses.dataclass
class Mutant:
    kernel: str
    function: str  # "-" outside of one
    line: int
    kind: str
    before: str  # the lines that change, and what they become, in one line each
    after: str
    original: str
    text: str


@dataclasses.dataclass
class Token:
    kind: str
    text: str
    start: int
    end: int
    directive: str  # "if" and the like where the token stands in a line of the preprocessor


def normal(text):
    return " ".join(text.split())


def tokens_of(text):
    """What can be changed: no comments, no strings, no defaults of build options, no #pragma."""
    found, directive, fresh = [], "", True
    for match in TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "newline":
            directive, fresh = "", True
        if kind in ("space", "newline", "comment"):
            continue
        if fresh and match[0] == "#":
            directive = re.match(r"#\s*(\w+)", text[match.start():])[1]
        fresh = False
        found.append(Token(kind, match[0], match.start(), match.end(), directive))
    held = [False] * len(text)
    for block in re.finditer(r"^#ifndef (\w+)[^\n]*\n(?:#define [^\n]*\n)+#endif", text, re.MULTILINE):
        for at in range(block.start(), block.end()):
            held[at] = True
    return [t for t in found if not held[t.start] and t.directive in ("", "if", "elif", "define")]


def partner(tokens, i):
    """The index of the bracket that closes the one at i."""
    depth = 0
    for k in range(i, len(tokens)):
        depth += tokens[k].text in ("(", "[", "{")
        depth -= tokens[k].text in (")", "]", "}")
        if depth == 0:
            return k
    return None


def is_operand(token):
    return token.kind in ("name", "number") and token.text not in DECLARES or token.text in (")", "]")


def operators(tokens):
    for i, token in enumerate(tokens):
        if token.kind != "sign" or i == 0 or not is_operand(tokens[i - 1]):
            continue
        # (real *)&v: the star of a type, and what follows a cast
        if tokens[i - 1].text in TYPES:
            continue
        for kind, table in (("arithmetic", ARITHMETIC), ("bitwise", BITWISE), ("logical", LOGICAL)):
            if token.text in table:
                yield token.start, token.end, table[token.text], kind
        for other in COMPARISON.get(token.text, ()):
            yield token.start, token.end, other, "comparison"


def constants(tokens):
    for i, token in enumerate(tokens):
        if token.kind != "number":
            continue
        if "." in token.text or "p" in token.text:
            yield token.start, token.end, f"({token.text} * 2)", "constant"
            continue
        digits = token.text.rstrip("uUlL")
        value, suffix = int(digits, 0), token.text[len(digits):]
        yield token.start, token.end, f"{value + 1}{suffix}", "constant"
        if value > 0:
            yield token.start, token.end, f"{value - 1}{suffix}", "constant"


def declared_brackets(tokens):
    """The start of every [ that says how large an array is."""
    found, declares, initial, depth = set(), False, False, 0
    for i, token in enumerate(tokens):
        before = tokens[i - 1].text if i else ";"
        if before in (";", "{", "}") and depth == 0:
            declares, initial = token.text in DECLARES, False
        depth += token.text in ("(", "[")
        depth -= token.text in (")", "]")
        if depth == 0 and token.text == "=":
            initial = True
        if depth == 0 and token.text == ",":
            initial = False
        if token.text == "[" and depth == 1 and declares and not initial:
            found.add(token.start)
    return found


def indices(tokens, text):
    sizes = declared_brackets(tokens)
    for i, token in enumerate(tokens):
        if token.text != "[" or token.start in sizes or i == 0 or not is_operand(tokens[i - 1]):
            continue
        end = partner(tokens, i)
        if end is None or end == i + 1:
            continue
        inner = text[token.end:tokens[end].start]
        inner = inner if end == i + 2 else f"({inner})"
        for change in (" + 1", " - 1"):
            yield token.end, tokens[end].start, inner + change, "index"


def functions(tokens):
    """Stretches from one closing brace of the outermost level to the next."""
    begin, depth = 0, 0
    for i, token in enumerate(tokens):
        depth += token.text == "{"
        depth -= token.text == "}"
        if token.text == "}" and depth == 0:
            yield tokens[begin:i + 1]
            begin = i + 1
    yield tokens[begin:]


def owner_of(part):
    """The name of the function that a stretch defines, and where its text begins and ends."""
    plain, depth, name = [t for t in part if not t.directive], 0, "-"
    for i, token in enumerate(plain):
        if token.text == "{" and depth == 0:
            break
        if token.text == "(" and depth == 0 and i and plain[i - 1].kind == "name":
            name = plain[i - 1].text
        depth += token.text == "("
        depth -= token.text == ")"
    return (name, plain[0].start, plain[-1].end) if plain else (name, 0, 0)


def lookalikes(tokens):
    names = {token.text for token in tokens}
    others = {}
    for a, b in ALIKE:
        if a in names and b in names:
            others.setdefault(a, []).append(b)
            others.setdefault(b, []).append(a)
    for i, token in enumerate(tokens):
        before = tokens[i - 1].text if i else ""
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        declared = before in DECLARES or (before == "*" and tokens[i - 2].text in TYPES) or \
            (before == "," and after in ("=", "["))
        if token.kind == "name" and not declared and before not in (".", "->") and token.directive == "":
            for other in others.get(token.text, ()):
                yield token.start, token.end, other, "name"


def statements(tokens, text):
    """Assignments, calls, return and break, each replaced by nothing."""
    begins, parens = set(), []
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else None
        if before is None or (before.text in (";", "{", "}", "else") or (before.directive and not token.directive)):
            begins.add(i)
        if token.text == "(":
            parens.append(i)
        elif token.text == ")" and parens:
            opened = parens.pop()
            if opened and tokens[opened - 1].text in ("if", "for", "while"):
                begins.add(i + 1)
        elif before is not None and before.text == ";" and parens:
            begins.discard(i)
    for i in sorted(begins):
        if i >= len(tokens) or tokens[i].directive or tokens[i].kind != "name" and tokens[i].text != "*":
            continue
        if tokens[i].text in DECLARES | {"if", "for", "while", "else", "do", "return"} and \
                not (tokens[i].text == "return" and tokens[i + 1].text == ";"):
            continue
        depth, k = 0, i
        while k < len(tokens) and not (tokens[k].text == ";" and depth == 0):
            depth += tokens[k].text in ("(", "[")
            depth -= tokens[k].text in (")", "]")
            if depth < 0 or tokens[k].directive or tokens[k].text in ("{", "}"):
                break
            k += 1
        if k < len(tokens) and tokens[k].text == ";":
            lost = text[tokens[i].start:tokens[k].end]
            yield tokens[i].start, tokens[k].end, ";" + "\n" * lost.count("\n"), "statement"


def ternaries(tokens, text):
    for i, token in enumerate(tokens):
        if token.text != "?":
            continue
        depth, nested, colon, end = 0, 0, None, None
        for k in range(i + 1, len(tokens)):
            t = tokens[k].text
            if t in (")", "]", "}") and depth == 0 or t in (",", ";") and depth == 0 or \
                    tokens[k].directive != token.directive or \
                    (token.directive and "\n" in text[tokens[k - 1].end:tokens[k].start]):
                end = k
                break
            depth += t in ("(", "[")
            depth -= t in (")", "]")
            nested += t == "?" and depth == 0
            if t == ":" and depth == 0:
                if nested == 0 and colon is None:
                    colon = k
                elif nested:
                    nested -= 1
        if colon and end:
            yes = text[token.end:tokens[colon].start].strip()
            no = text[tokens[colon].end:tokens[end - 1].end].strip()
            yield token.end, tokens[end - 1].end, f" {no} : {yes}", "ternary"


def make(kernel, owners, text, start, end, new, kind):
    changed = text[:start] + new + text[end:]
    first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    last = len(text) if last < 0 else last
    before, after = normal(text[first:last]), normal(changed[first:len(changed) - (len(text) - last)])
    function = next((name for name, begin, close in owners if begin <= start < close), "-")
    return Mutant(kernel, function, text.count("\n", 0, start) + 1, kind, before, after, text, changed)


def candidates(kernel, text, chance):
    """Every mutant in an order of chance in which each line has its turn before one comes again."""
    tokens = tokens_of(text)
    lines, known, owners = {}, {normal(text)}, [owner_of(part) for part in functions(tokens)]
    changes = [*operators(tokens), *constants(tokens), *indices(tokens, text), *statements(tokens, text),
               *ternaries(tokens, text)]
    for part in functions(tokens):
        changes += lookalikes(part)
    for start, end, new, kind in sorted(changes):
        mutant = make(kernel, owners, text, start, end, new, kind)
        if normal(mutant.text) not in known:
            known.add(normal(mutant.text))
            lines.setdefault(mutant.line, []).append(mutant)
    rounds = []
    for line in sorted(lines):
        chance.shuffle(lines[line])
    while any(lines.values()):
        turn = [found.pop() for _, found in sorted(lines.items()) if found]
        chance.shuffle(turn)
        rounds += turn
    return rounds

"""Checks that a caption describes something, in English: no refusal, placeholder or "None"."""

from __future__ import annotations

import re
import unicodedata

_NOTHING = re.compile(
    r"(?:(?:an?|the|any|some) )?(?:n\W{0,3}a|nan|nil|null|no|yes|none(?: of .*)?|nothing(?: else)?|no one|nobody"
    r"|undefined|unknown|unclear|unavailable|unidentified|unspecified|invisible|absent|void|content|redacted"
    r"|not (?:applicable|available|visible|sure|specified|shown|present|provided)"
    r"|empty|blank|untitled|tbd|todo|error|true|false)"
    r"(?: (?:visible|seen|shown|present|found|given|detected|provided|removed|objects?|things?|items?|image|picture"
    r"|frame|background|foreground|captions?))?",
    re.IGNORECASE,
)
_PLACEHOLDER_MARK = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\{[^{}]*\}|<\||\|>")
_PLACEHOLDER = re.compile(
    r"string|xx+|an?|the|(?:an? )?image(?: of(?: an?)?)?|https?://\S*|lorem ipsum.*"
    r"|(?:(?:an?|the|your|some|this|one) )?"
    r"(?:(?:foreground|background|your|first|second|sounding|silent|single|short|other|various|several) )*"
    r"(?:captions?|labels?|placeholders?|descriptions?|phrases?|objects?|backgrounds?|foregrounds?)"
    r"(?: (?:\d+|here|goes here|text|of the (?:objects?|backgrounds?|foregrounds?|labels?)))?",
    re.IGNORECASE,
)
_CANNOT = r"(?:can'?t|cannot|can not|could(?: not|n't)|unable to|not able to|(?:im|not )possible to)"
_TELL = r"(?:seen?$|identif|determin|describ|discern|provid|tell\b|assist|help\b|compl|fulfil|process)"
_FRAME = r"(?:image|frame|picture|photo|scene)"
# At the start of a caption.
_REFUSAL = re.compile(
    r"(?:i|we)(?:'\w+)? |please (?:provide|upload|attach|send|share|try)\b|could you\b|it (?:seems|appears)\b|error:"
    r"|(?:my )?apologies\b|unfortunately\b|sorry(?:$|,| but| i\b| for)"
    rf"|(?:it(?: is|'s) )?{_CANNOT}\b|there(?:'s| is| are) (?:no|nothing|not)\b|there (?:isn|aren)'t\b"
    rf"|(?:the |this |no )?{_FRAME} (?:\S+ ){{0,2}}?(?:not|no|doesn't|isn't|cannot|can't|missing|provided|attached)\b"
    r"|(?:\w+ ){1,3}\(?(?:is |are )?(?:not (?:visible|shown|seen|available|present|depicted)|unavailable)\)?$"
    r"|(?:no|not) (?:\S+ ){0,4}(?:visible|seen|shown|present|found|available|applicable|identifiable|identified"
    r"|depicted|discernible|detected|objects?|things?|items?|foreground|background|captions?|descriptions?"
    r"|information)\b",
    re.IGNORECASE,
)
# Anywhere in a caption.
_DENIAL = re.compile(
    rf"\b{_CANNOT} (?:be )?{_TELL}|\bas an (?:ai|artificial intelligence|assistant)\b|\bas a language model\b"
    rf"|\b(?:is|are)(?: not|n't) (?:visible|shown|present|depicted|identifiable) in (?:the|this) {_FRAME}"
    r"|\b(?:do|does)(?: not|n't) appear in\b|\b(?:which|that) (?:is|are)(?: not|n't) (?:visible|shown|present)$"
    r"|\b(?:my|our|content|safety) (?:guidelines|polic(?:y|ies))\b",
    re.IGNORECASE,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENGLISH = _words(
    "a an the of with and by from for near behind beside next his their who which while holding playing wearing"
    " in on at to standing sitting woman people girl boy"
)
# Words that English doesn't have: French, German, Spanish, Italian, Portuguese, Dutch, Swedish, Polish, Turkish.
_FOREIGN = _words(
    "une avec dans qui jouant homme femme joue assis ein eine einen einem einer eines mit und auf ist zum spielt ich"
    " kann nicht una unos unas hombre mujer tocando toca sentado sentada por uomo donna nel nella suona suonando gli"
    " um uma homem mulher não een het zijn speelt och på ett spelar jest osoba gra bir ve çalan"
)
# These stand in English captions too, in names (Los Angeles, Cirque du Soleil) or as words of their own (a van).
_IN_NAMES = _words("le la les des du de d l un el los las di il lo et con com van der das den dem von est sur")
_QUOTATION = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»')


def why_unusable(caption: str) -> str:
    """Why ``caption``, without "an image of", is no description of what is seen; empty if it is one."""
    text = caption.replace("’", "'")
    bare = text.strip(" .:,;*`'\"()-")
    if _PLACEHOLDER_MARK.search(text) or _PLACEHOLDER.fullmatch(bare):
        return "is a placeholder"
    if _NOTHING.fullmatch(bare):
        return "says nothing"
    if _REFUSAL.match(text) or _DENIAL.search(text):
        return "says that something can't be described"
    if not _in_english(text):
        return "is not in English"
    return ""


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith("LATIN ")


def _in_english(text: str) -> bool:
    """Whether the letters are Latin, and no more small words come from other languages than from English."""
    outside = _QUOTATION.sub(" ", text)  # a sign in the picture may be in any language
    text = outside if any(c.isalpha() for c in outside) else text
    letters = [c for c in text if c.isalpha()]
    if sum(not _is_latin(c) for c in letters) > 0.2 * len(letters):
        return False
    words = re.findall(r"[^\W\d_]+", text)
    foreign = sum(word in _FOREIGN for word in words)
    # English borrows single words with accents: a cajón, a crème brûlée.
    perhaps = sum(word.lower() in _IN_NAMES for word in words) + sum(not word.isascii() for word in words) // 2
    if not foreign and perhaps < 2:
        return True
    return foreign + perhaps <= sum(word.lower() in _ENGLISH for word in words)

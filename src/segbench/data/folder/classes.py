"""The classes of a folder of masks: its values, palette indices or colours, or as the user names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.data.files.masks import LACKING
from segbench.data.folder.facts import MaskFacts, by_page
from segbench.data.folder.faults import refuse_no_masks, refuse_smoothed, some
from segbench.data.folder.labels import Classes, Coding, codes_of, is_void, lacking, say
from segbench.data.pascal_voc import voc_palette
from segbench.errors import SegbenchError
from segbench.spec import VOID, MaskCoding

MOST_CLASSES = 255
"""Labels are bytes, and 255 is void."""

REST = "rest"
"""In data.classes: every value not given to another class."""

_LITTLE = 0.05
"""A value 0 on fewer pixels, and fewer than other values, is no background; it may be what nobody labelled."""

_MANY_CLASSES = 25
"""More values than this, without a palette to show them, are as often instance ids as classes."""

AUTO = "auto"
"""As data.classes: every value is a class; if there are two, 0 and the highest, they have names."""

_MASKS_OF_TWO = ([0, 1], [0, 255], [0, 65535])

Given = Sequence[str] | Mapping[str, Any] | str | None


def find_classes(folder: Path, masks: Mapping[str, Sequence[MaskFacts]], given: Given, ignore: Any) -> Classes:
    """The classes of a folder of masks.

    Args:
        folder: of the masks, for messages.
        masks: a scan's facts of each page by name; at least one.
        given: None makes every value or colour a class, in ascending order; `auto` too, and calls the values 0 and the
            highest of their type (or 1) background and foreground. A list names the values in ascending order,
            or the ids 0, 1, 2 ... if it is long enough. A mapping gives each class its value or colour, several of
            them, or `rest`.
        ignore: the value or colour that is void, or several, or None.

    Raises:
        SegbenchError: files that are not masks (photographs, smoothed masks, too many values), two codings that do not
            match, only one class, or names that do not fit.
    """
    named, given = given == AUTO, None if given == AUTO else given
    coding = _coding(masks)
    kept = _named(given, coding)
    pixels: Counter[int] = Counter()
    for _, _, facts in by_page(masks):
        # A loop, as `update` costs twice as much for a few codes.
        for code, count in codes_of(facts, coding, kept):
            pixels[code] += count
    void = _codes(ignore, coding, "data.ignore_index")
    found = sorted(set(pixels) - set(void))
    catch_all = isinstance(given, Mapping) and REST in given.values()
    refuse_no_masks(folder, masks, pixels, None if catch_all else MOST_CLASSES + len(set(void) & set(pixels)))
    if given is None and coding == "ids" and all(facts.kind == "ids" for _, _, facts in by_page(masks)):
        refuse_smoothed(folder, {code: pixels[code] for code in found})
    if isinstance(given, Mapping):
        names, groups, rest = _from_mapping(given, coding, found, pixels)
    else:
        names, groups, rest = *_from_values(given, coding, found, pixels), None
        if named and coding == "ids" and found in _MASKS_OF_TWO:
            names = ("background", "foreground")
    labels = {code: label for label, group in enumerate(groups) for code in group} | dict.fromkeys(void, VOID)
    seen = sorted({label for code in found if (label := labels.get(code, rest)) is not None})
    if len(seen) < 2:
        one = f"one class only, {names[seen[0]]}" if seen else "void only"
        raise SegbenchError(
            f"the masks in {folder} have {one}",
            "at least two classes, such as object and background",
            "check data.masks, data.classes and data.ignore_index" + _why_one(masks, void),
        )
    if len(names) > MOST_CLASSES:
        raise SegbenchError(f"data.classes names {len(names)} classes", f"at most {MOST_CLASSES}", "merge some")
    left = [code for code in found if code not in labels]
    colours = _palette(masks, coding, groups, left)
    written = _written(masks, coding, groups, left, void, colours)
    notes = (*_declared(masks, coding, kept), *_notes(masks, coding, pixels, void, found, given))
    return Classes(coding, names, colours, labels, written, rest, kept, notes)


def _named(given: Given, coding: Coding) -> frozenset[int]:
    """The codes that a mapping gives to a class."""
    if not isinstance(given, Mapping):
        return frozenset()
    values = {name: value for name, value in given.items() if value != REST}
    return frozenset(code for name, value in values.items() for code in _codes(value, coding, f"data.classes.{name}"))


def _why_one(masks: Mapping[str, Sequence[MaskFacts]], void: Sequence[int]) -> str:
    """What may have left one class."""
    declared = {facts.nodata for _, _, facts in by_page(masks)} - {None}
    if declared:
        return (
            f"; masks declare {some(sorted(map(str, declared)), 3)} as no data: data.classes makes it a class by name"
        )
    return "" if void else "; every pixel of every mask is the same"


def _declared(masks: Mapping[str, Sequence[MaskFacts]], coding: Coding, kept: Collection[int]) -> list[str]:
    """A sentence on each value that files declare as no data."""
    pages: Counter[tuple[int, str, bool]] = Counter()
    pixels: Counter[tuple[int, str, bool]] = Counter()
    for _, _, facts in by_page(masks):
        if facts.nodata is not None:
            void = is_void(facts.nodata, facts.kind, coding, kept)
            shown = say(facts.nodata, "ids" if facts.kind == "ids" else coding)
            value = (facts.nodata, "NaN or the lowest number" if facts.nodata == LACKING else shown, void)
            pages[value] += 1
            pixels[value] += lacking(facts, coding, kept)
    return [
        f"{count} masks declare {shown} as no data (GDAL_NODATA): "
        + (f"void there, {pixels[code, shown, void]} pixels" if void else "data.classes names it, so it is a class")
        for (code, shown, void), count in sorted(pages.items())
    ]


def _coding(masks: Mapping[str, Sequence[MaskFacts]]) -> Coding:
    kinds: dict[str, list[str]] = {}
    for name, _, facts in by_page(masks):
        kinds.setdefault(facts.kind, []).append(name)
    if "colours" not in kinds and not ("palette" in kinds and _palettes_differ(masks)):
        return "ids"
    for name, _, facts in by_page(masks):
        if facts.kind == "ids" and facts.codes and not 0 <= facts.codes[0] <= facts.codes[-1] <= 255:
            coloured = kinds.get("colours", kinds.get("palette", []))
            raise SegbenchError(
                f"masks of colours ({some(coloured)}) besides {name}, which has ids up to {facts.codes[-1]}",
                "masks of one coding: ids, palettes or colours",
                "write all masks in one coding",
            )
    return "colours"


def _palettes_differ(masks: Mapping[str, Sequence[MaskFacts]]) -> bool:
    # Programs that save few colours as a palette number them differently in each file.
    colours: dict[int, int] = {}
    return any(
        colours.setdefault(code, colour) != colour
        for _, _, facts in by_page(masks)
        if facts.kind == "palette"
        for code, colour in zip(facts.codes, facts.colours, strict=True)
    )


def _codes(given: Any, coding: Coding, key: str) -> tuple[int, ...]:
    """The codes that a config value names."""
    if given is None:
        return ()
    if isinstance(given, (list, tuple)):
        if coding == "colours" and len(given) == 3 and all(_is_byte(channel) for channel in given):
            return ((given[0] << 16) + (given[1] << 8) + given[2],)
        return tuple(code for each in given for code in _codes(each, coding, key))
    if coding == "colours" and _is_byte(given):
        return (given * 0x010101,)
    if coding == "colours" and isinstance(given, str) and len(given.removeprefix("#")) == 6:
        try:
            return (int(given.removeprefix("#"), 16),)
        except ValueError:
            pass
    if coding == "ids" and isinstance(given, int) and not isinstance(given, bool):
        return (given,)
    colours = "a colour, [255, 0, 0] or '#ff0000', or a list of colours"
    raise SegbenchError(
        f"{key}={given}, and the masks have {'colours' if coding == 'colours' else 'values'}",
        colours if coding == "colours" else "a value of the masks, or a list of values (palettes: the index)",
        f"correct {key}",
    )


def _is_byte(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 255


def _from_values(
    given: Sequence[str] | None, coding: Coding, found: Sequence[int], pixels: Mapping[int, int]
) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
    if given is None:
        return tuple(say(code, coding) for code in found), [(code,) for code in found]
    names = _checked_names(given)
    if coding == "ids" and found and found[0] >= 0 and len(names) > found[-1]:
        return names, [(code,) for code in range(len(names))]
    if len(names) != len(found):
        hint = "; a value that marks void is data.ignore_index" if len(names) < len(found) else ""
        raise SegbenchError(
            f"data.classes has {len(names)} names and the masks {len(found)} values: {_shares(found, coding, pixels)}",
            "a name for each value, in ascending order",
            f"correct data.classes, or give each name its values: data.classes='{{NAME: 0, OTHER: [1, 2]}}'{hint}",
        )
    return names, [(code,) for code in found]


def _from_mapping(
    given: Mapping[str, Any], coding: Coding, found: Sequence[int], pixels: Mapping[int, int]
) -> tuple[tuple[str, ...], list[tuple[int, ...]], int | None]:
    names = _checked_names(list(given))
    rests = [label for label, value in enumerate(given.values()) if value == REST]
    groups = [() if value == REST else _codes(value, coding, f"data.classes.{n}") for n, value in given.items()]
    twice = [code for code, times in Counter(code for group in groups for code in group).items() if times > 1]
    if twice or len(rests) > 1:
        what = f"the value {say(twice[0], coding)}" if twice else REST
        raise SegbenchError(f"data.classes gives {what} to two classes", "to one", "correct data.classes")
    left = sorted(set(found) - {code for group in groups for code in group})
    if left and not rests:
        raise SegbenchError(
            f"data.classes leaves out {len(left)} values of the masks: {_shares(left, coding, pixels)}",
            "a class for every value",
            f"name them, give them to data.ignore_index, or let one class be {REST}",
        )
    return names, groups, rests[0] if rests else None


def _checked_names(given: Sequence[Any]) -> tuple[str, ...]:
    names = tuple(str(name) for name in given)
    if isinstance(given, str) or len(set(names)) < len(names) or not all(names):
        raise SegbenchError(
            f"data.classes={given}", "different names in a list", "set data.classes='[background, object]'"
        )
    return names


def _shares(codes: Sequence[int], coding: Coding, pixels: Mapping[int, int]) -> str:
    total = sum(pixels.values())
    shown = ", ".join(f"{say(code, coding)} ({pixels[code] / total:.2%})" for code in codes[:12])
    return shown + (" ..." if len(codes) > 12 else "")


def _written(
    masks: Mapping[str, Sequence[MaskFacts]],
    coding: Coding,
    groups: Sequence[Sequence[int]],
    rest: Sequence[int],
    void: Sequence[int],
    palette: Sequence[tuple[int, int, int]],
) -> MaskCoding:
    """How these masks write the classes: of several values of a class the first, of the rest the smallest."""
    own = {
        code: colour
        for _, _, facts in by_page(masks)
        if facts.kind == "palette"
        for code, colour in zip(facts.codes, facts.colours, strict=True)
    }
    taken = {code for group in groups for code in group} | {*rest, *void}
    if coding == "colours":
        free = iter(code for code in (0xE0E0C0, *(v * 0x010101 for v in range(255, -1, -1))) if code not in taken)
    else:
        free = iter(code for code in (*range(255, -1, -1), *range(65535, 255, -1)) if code not in taken)
    values = tuple(group[0] if group else rest[0] if rest else next(free) for group in groups)
    indexed = coding == "ids" and all(facts.kind == "palette" for _, _, facts in by_page(masks))
    shown = [(red << 16) + (green << 8) + blue for red, green, blue in palette]
    colours = tuple(own.get(value, colour) for value, colour in zip(values, shown, strict=True)) if indexed else ()
    kind = "colours" if coding == "colours" else "palette" if indexed else "ids"
    return MaskCoding(kind, values, colours, void[0] if void else next(free))


def _palette(
    masks: Mapping[str, Sequence[MaskFacts]], coding: Coding, groups: Sequence[Sequence[int]], rest: Sequence[int]
) -> tuple[tuple[int, int, int], ...]:
    """The masks' own colours; if they have none or two classes would look the same, black and white or VOC's."""
    own: dict[int, int] = {}
    for _, _, facts in by_page(masks):
        if coding == "colours":
            own.update((code, code) for code, _ in codes_of(facts, coding))
        elif facts.kind == "palette":
            own.update(zip(facts.codes, facts.colours, strict=True))
    colours = [next((own[code] for code in (group or rest) if code in own), -1) for group in groups]
    ramp = coding == "ids" and all(colour == code * 0x010101 for code, colour in own.items())
    if -1 in colours or ramp or len(set(colours)) < len(colours):
        return ((0, 0, 0), (255, 255, 255)) if len(groups) == 2 else voc_palette(len(groups))
    return tuple((colour >> 16, colour >> 8 & 255, colour & 255) for colour in colours)


def _notes(
    masks: Mapping[str, Sequence[MaskFacts]],
    coding: Coding,
    pixels: Mapping[int, int],
    void: Sequence[int],
    found: Sequence[int],
    given: Given,
) -> tuple[str, ...]:
    notes = []
    absent = [say(code, coding) for code in void if code not in pixels]
    if absent:
        notes.append(f"data.ignore_index: no mask has {', '.join(absent)}")
    if given is None and coding == "ids":
        notes += _doubtful(found, pixels)
    kinds = Counter(facts.kind for _, _, facts in by_page(masks))
    if given is None and kinds["ids"] and len(found) > _MANY_CLASSES:
        notes.append(
            f"{len(found)} values are {len(found)} classes here; if each value is an object, make them one class with "
            "data.classes='{background: 0, object: rest}', or find them with experiment=image_objects"
        )
    if coding == "colours" and kinds["ids"]:
        notes.append(f"{kinds['ids']} masks are grey: their value v counts as the colour (v, v, v)")
    if coding == "colours" and not kinds["colours"]:
        notes.append("the palettes differ from file to file: their colours are the classes, not their indices")
    total = sum(pixels.values())
    rare = [code for code in found if pixels[code] < 1e-5 * total]
    if given is None and len(found) > 8 and len(rare) > len(found) / 2:
        notes.append(
            f"{len(rare)} of {len(found)} values together have {sum(pixels[code] for code in rare) / total:.4%} of the "
            "pixels, as in masks that were resized with interpolation or saved as JPEG"
        )
    return tuple(notes)


def _doubtful(found: Sequence[int], pixels: Mapping[int, int]) -> list[str]:
    """A question for each value that often marks void: -1 or another below 0, 255 apart from the others, a rare 0."""
    total = sum(pixels[code] for code in found)
    void = [code for code in found if code < 0]
    if len(found) > 2 and found[-1] == VOID and found[-2] < VOID - 1:
        void.append(VOID)
    if len(found) > 2 and 0 in found and pixels[0] < min(_LITTLE, 0.5 / len(found)) * total:
        void.append(0)
    return [
        f"{code} is a class here, on {pixels[code] / total:.2%} of the pixels; if it marks void pixels, set "
        f"data.ignore_index={code}"
        for code in void
    ]

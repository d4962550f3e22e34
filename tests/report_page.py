#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Is a benchmark report what it should be?

usage: report_page.py PAGE [TEXTS]

PAGE   must be well-formed, need nothing from outside, have no number in a drawing that is not
       finite, and no two labels of a drawing in the same place
TEXTS  lines, each of which must be the text of a <code> element
"""
import math
import re
import sys
import xml.etree.ElementTree as ElementTree

HTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"
GEOMETRY = ("x", "y", "x1", "x2", "y1", "y2", "width", "height", "points", "d",
            "transform", "viewBox")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def numbers(element):
    """Every number of every coordinate; fails where one is not finite or is no number."""
    for name, value in element.attrib.items():
        if name not in GEOMETRY:
            continue
        words = value
        if name in ("d", "transform"):
            words = re.sub("translate|rotate|[MmLlHhVvAaZz]", " ", value)
        rest = NUMBER.sub(" ", words)
        assert not rest.strip(" ,()%"), "%s %s=%r" % (element.tag, name, value)
        for number in NUMBER.findall(words):
            assert math.isfinite(float(number)), "%s %s=%r" % (element.tag, name, value)
            yield name, float(number)


def label_box(text):
    """What a label of 11.5 px covers, a little less than the width of common fonts."""
    x, y, classes = float(text.get("x")), float(text.get("y")), text.get("class").split()
    width = 5.2 * len(text.text or "")
    left = x - width if "end" in classes else x - width / 2 if "middle" in classes else x
    return left, y - 8, left + width, y + 1, text.text


def check_drawing(svg):
    for element in svg.iter():
        for name, number in numbers(element):
            assert name not in ("width", "height") or number >= 0, element.attrib
    if svg.get("class") == "bar":
        for rect in svg.iter(SVG + "rect"):
            assert float(rect.get("width").rstrip("%")) <= 100
        return
    _, _, width, height = map(float, svg.get("viewBox").split())
    turned = {t for g in svg.iter(SVG + "g") for t in g}
    boxes = [label_box(t) for t in svg.iter(SVG + "text") if t not in turned]
    for i, a in enumerate(boxes):
        assert a[0] >= 0 and a[1] >= 0 and a[2] <= width and a[3] <= height, "outside: %r" % (a,)
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], "%r on %r" % (a, b)


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055)**2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def check_contrast(page):
    """What names are written in stands out from the page by 4.5 (WCAG 2, AA), in both schemes."""
    schemes = re.findall(r":root\s*{([^}]*--page[^}]*)}", page)
    assert len(schemes) == 2, len(schemes)
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})\b", scheme))
        background = luminance(colours["page"])
        for name in set(colours) - {"page", "rule", "soft"}:
            low, high = sorted((background, luminance(colours[name])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, colours[name])


def main():
    page = open(sys.argv[1], encoding="utf-8").read()
    root = ElementTree.fromstring(page)
    assert root.tag == HTML + "html"
    for element in root.iter():
        assert element.tag.split("}")[1] not in ("script", "link", "img", "iframe"), element.tag
        assert not {"src", "href"} & set(element.attrib), element.attrib
    assert "url(" not in page and "@import" not in page
    check_contrast(page)
    for parent in root.iter():
        for svg in parent.findall(SVG + "svg"):
            if not parent.tag.startswith(SVG):
                check_drawing(svg)
    if len(sys.argv) > 2:
        codes = {"".join(e.itertext()) for e in root.iter(HTML + "code")}
        for line in open(sys.argv[2], encoding="utf-8", newline="\n").read().split("\n")[:-1]:
            assert line in codes, "not in the page: %r" % line


main()

# Draws folded stacks ("outermost;...;innermost weight", one a line) as a flame graph: one SVG that needs nothing else.
#
#   awk -f draw.awk -v title='Where the time goes' -v unit=samples stacks.folded > flame.svg
#
# The width of a frame is its share of the weight, heaviest children first; its parent is below it. Frames
# narrower than a third of a pixel are left out. In a browser a click widens a frame, `find` marks frames by name.
# Any POSIX awk will do.

BEGIN {
    width = 1200; margin = 10; row = 17; head = 44; letter = 7.3
    if (unit == "") unit = "samples"
    node_of[""] = 0
    nodes = 0
}

NF >= 2 && $NF ~ /^[0-9]+$/ {
    value = $NF
    stack = $0
    sub(/ [0-9]+$/, "", stack)
    count = split(stack, frame, ";")
    parent = 0
    path = ""
    total[0] += value
    for (i = 1; i <= count; i++) {
        path = path ";" frame[i]
        if (!(path in node_of)) {
            node_of[path] = ++nodes
            name[nodes] = frame[i]
            # Children as a list, so that no order of the input is asked for.
            next_child[nodes] = first_child[parent]
            first_child[parent] = nodes
        }
        parent = node_of[path]
        total[parent] += value
    }
    if (count > deepest) deepest = count
}

END {
    if (!total[0]) {
        print "draw.awk: no stack to draw" > "/dev/stderr"
        exit 1
    }
    height = head + (deepest + 1) * row + margin
    scale = (width - 2 * margin) / total[0]
    open_drawing()
    name[0] = "all"
    place(0, margin, 0)
    print "</svg>"
}

function place(node, x, depth,    order, many, i, child) {
    if (total[node] * scale < 0.33) return
    box(node, x, depth)
    many = 0
    for (child = first_child[node]; child; child = next_child[child]) order[++many] = child
    by_weight(order, many)
    for (i = 1; i <= many; i++) {
        place(order[i], x, depth + 1)
        x += total[order[i]] * scale
    }
}

function by_weight(order, many,    i, j, held) {
    for (i = 2; i <= many; i++) {
        held = order[i]
        for (j = i - 1; j >= 1 && total[order[j]] < total[held]; j--) order[j + 1] = order[j]
        order[j + 1] = held
    }
}

function box(node, x, depth,    w, y, label, room, colour) {
    w = total[node] * scale
    y = height - margin - (depth + 1) * row
    label = name[node]
    colour = sub(/_\[k\]$/, "", label) ? "k" : "u"
    room = int((w - 6) / letter)
    printf "<g><title>%s: %.2f %% (%d %s)</title>", xml(label), 100 * total[node] / total[0], total[node], unit
    printf "<rect class=\"%s%d\" x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\"/>", colour, depth % 2, x, y, w, row - 1
    printf "<text x=\"%.2f\" y=\"%d\">%s</text></g>\n", x + 3, y + 12, room < 3 ? "" : xml(shortened(label, room))
}

function shortened(label, room) { return length(label) > room ? substr(label, 1, room - 2) ".." : label }

function xml(text) {
    gsub(/&/, "\\&amp;", text)
    gsub(/</, "\\&lt;", text)
    gsub(/>/, "\\&gt;", text)
    gsub(/"/, "\\&quot;", text)
    return text
}

function open_drawing() {
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n", width, height, width, height
    print "<style>"
    print "svg { background: #fff } text { font: 12px monospace; fill: #111; pointer-events: none }"
    print "rect { cursor: pointer } rect:hover { stroke: #111 } #find { cursor: pointer; pointer-events: all; fill: #06c }"
    print ".u0 { fill: #f6b26b } .u1 { fill: #f9cb9c } .k0 { fill: #9fc5e8 } .k1 { fill: #b9d5f0 } .found { fill: #d5a6e6 }"
    print "</style>"
    printf "<text x=\"%d\" y=\"18\" style=\"font-weight: bold\">%s</text>\n", margin, xml(title)
    printf "<text x=\"%d\" y=\"36\">%d %s; orange: the program, blue: the kernel</text>\n", margin, total[0], xml(unit)
    printf "<text id=\"find\" x=\"%d\" y=\"18\" text-anchor=\"end\">find</text>\n", width - margin
    printf "<text id=\"told\" x=\"%d\" y=\"36\" text-anchor=\"end\"></text>\n", width - margin
    print "<script><![CDATA["
    printf "const left = %d, span = %d, letter = %s;\n", margin, width - 2 * margin, letter
    print "addEventListener('load', () => {"
    print "  const frames = [...document.querySelectorAll('g')].map(g => {"
    print "    const [title, rect, text] = g.children;"
    print "    const name = title.textContent.replace(/: [0-9.]+ % \\(.*\\)$/, '');"
    print "    return { g, rect, text, name, x: +rect.getAttribute('x'), w: +rect.getAttribute('width') };"
    print "  });"
    print "  const widen = to => frames.forEach(f => {"
    print "    // What holds the chosen frame becomes as wide as it; what lies beside it goes."
    print "    const from = Math.max(f.x, to.x), until = Math.min(f.x + f.w, to.x + to.w);"
    print "    const x = left + (from - to.x) * span / to.w, w = (until - from) * span / to.w;"
    print "    f.g.style.display = w < 0.3 ? 'none' : '';"
    print "    if (w < 0.3) return;"
    print "    f.rect.setAttribute('x', x); f.rect.setAttribute('width', w);"
    print "    const room = Math.floor((w - 6) / letter);"
    print "    f.text.setAttribute('x', x + 3);"
    print "    f.text.textContent = room < 3 ? '' : f.name.length > room ? f.name.slice(0, room - 2) + '..' : f.name;"
    print "  });"
    print "  frames.forEach(f => f.rect.addEventListener('click', () => widen(f)));"
    print "  document.getElementById('find').addEventListener('click', () => {"
    print "    const word = prompt('Mark frames whose name holds'), spans = [];"
    print "    frames.forEach(f => {"
    print "      const is = word && f.name.includes(word);"
    print "      f.rect.classList.toggle('found', !!is);"
    print "      if (is) spans.push([f.x, f.x + f.w]);"
    print "    });"
    print "    // A frame inside another marked one counts once."
    print "    let sum = 0, end = 0;"
    print "    spans.sort((a, b) => a[0] - b[0]).forEach(([a, b]) => { sum += Math.max(0, b - Math.max(a, end)); end = Math.max(end, b); });"
    print "    document.getElementById('told').textContent = word ? `${word}: ${(100 * sum / span).toFixed(1)} %` : '';"
    print "  });"
    print "});"
    print "]]></script>"
}

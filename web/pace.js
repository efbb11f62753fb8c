// Draws text that streams in at most once a frame, and more rarely where drawing is slow: a long
// answer must not keep the page from scrolling and typing.

export function paced(draw) {
  let timer = 0, frame = 0, cost = 0;
  const now = () => {
    clearTimeout(timer);
    cancelAnimationFrame(frame);
    timer = frame = 0;
    const begin = performance.now();
    draw();
    cost = performance.now() - begin;
  };
  const soon = () => {
    if (timer || frame) return;
    timer = setTimeout(() => { frame = requestAnimationFrame(now); }, Math.min(500, 4 * cost));
  };
  const stop = () => {
    clearTimeout(timer);
    cancelAnimationFrame(frame);
  };
  return { soon, stop };
}

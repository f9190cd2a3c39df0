// Says why when the page itself could not be loaded. A plain script, because modules are what a hub refuses that does not
// know the page's name: a browser says where they are wanted, and behind a proxy that is another place than the hub thinks.

addEventListener(
  'error',
  ({ target }) => {
    if (target.localName !== 'script') return;
    const socket = new WebSocket(new URL('api/v1/ws', location.href).href.replace('http', 'ws'), 'taskhub.v1');
    socket.onclose = ({ code, reason }) => {
      const what = code === 4503 ? 'The hub does not want this connection.' : 'This page could not be loaded.';
      document.getElementById('connection').textContent = code === 4503 ? 'Refused' : 'Offline';
      const words = document.createElement('p');
      words.append(Object.assign(document.createElement('strong'), { textContent: what }), reason && ` (${code}, ${reason})`);
      document.getElementById('banner').className = 'bad';
      document.getElementById('banner').replaceChildren(words);
    };
    socket.onopen = () => setTimeout(() => socket.close(), 5_000);
  },
  true,
);

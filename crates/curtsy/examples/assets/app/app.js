document.getElementById("route").textContent = location.pathname;
const button = document.getElementById("count");
button.onclick = async () => {
  const answer = await fetch("/api/count", { method: "POST" });
  button.textContent = (await answer.json()).count;
};
